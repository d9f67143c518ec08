"""Tests of taking kernel names apart, in each of their spellings."""

from __future__ import annotations

import pytest

from tracelens.classify.normalise import canonical, parts


@pytest.mark.parametrize(
    ("name", "scope", "head", "inner"),
    [
        ("saxpy(double *, int)", "", "saxpy", ""),
        ("void at::native::<unnamed>::foo<(int)4, float>(T1 *)", "at::native", "foo", "4, float"),
        ("void (anonymous namespace)::foo<4, float>(float*)", "", "foo", "4, float"),
        (
            "std::enable_if<(((8)>(0)))&&x::y, void>::type vllm::norm<half, 8>(half*)",
            "vllm",
            "norm",
            "half, 8",
        ),
        ("void cutlass::Kernel2<a<b, c>>(a<b, c>::Params)", "cutlass", "Kernel2", "a<b, c>"),
        ("void a::b<int>::c(int)", "a::b", "c", "int"),
        ("void at::native::cut_off<at::nat", "at::native", "cut_off", "at::nat"),
        ("_ZN2at6native3fooIfLi4EEEvPT_", "at::native", "foo", ""),
        ("_Z17gemv2T_kernel_valIii6__halfS0_S0_fLi128ELi16", "", "gemv2T_kernel_val", "__half"),
        ("_ZN7ck_tile6kentryILi2ENS_10FmhaKernelIDF16bEEEEvT0_", "ck_tile", "kentry", "FmhaKernel"),
        ("_ZN2at31_GLOBAL__N__1234_9_norm_cu_999910foo_kernelIfEEv", "at", "foo_kernel", ""),
        ("_ZN5aiter8fmha_fwdE.kd", "aiter", "fmha_fwd", ""),
    ],
)
def test_a_name_is_taken_apart(name: str, scope: str, head: str, inner: str) -> None:
    part = parts(name)

    assert (part.scope, part.head, part.inner) == (scope, head, inner)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("f<(int)4, (unsigned long)2, (bool)1>", "f<4, 2, true>"),
        ("f<4u, 2ul, 3l>", "f<4, 2, 3>"),
        ("f<std::array<char *, (unsigned long)2>>(T1 *)", "f<std::array<char*, 2>>(T1*)"),
        ("f<g()::[lambda(float) (instance 2)]>", "f<g()::{lambda(float)#2}>"),
        ("attn_fwd.kd", "attn_fwd"),
        ("f(int) [clone .kd]", "f(int)"),
    ],
)
def test_what_profilers_spell_differently_is_spelled_as_one(name: str, expected: str) -> None:
    assert canonical(name) == expected
