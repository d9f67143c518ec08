"""Tests of short names: what they show, that spellings agree, and that kernels stay apart."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens.classify import short_name
from tracelens.classify.names import WIDTH


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Plain names stay.
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNN", "nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNN"),
        ("triton_poi_fused__to_copy_0", "triton_poi_fused__to_copy_0"),
        ("Memcpy DtoH (Device -> Pinned)", "Memcpy DtoH (Device -> Pinned)"),
        ("attn_fwd.kd", "attn_fwd"),
        (
            "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
            "ncclDevKernel_AllGather_RING_LL",
        ),
        # PyTorch's functors say what they do, for which type.
        (
            (
                "void at::native::vectorized_elementwise_kernel<4, at::native::"
                "CUDAFunctor_add<float>, "
                "at::detail::Array<char*, 3> >(int, at::native::CUDAFunctor_add<float>, "
                "at::detail::Array<char*, 3>)"
            ),
            "vectorized_elementwise<4, add<float>>",
        ),
        (
            (
                "void at::native::elementwise_kernel<128, 2, at::native::"
                "gpu_kernel_impl_nocast<at::native::"
                "BinaryFunctor<float, float, float, at::native::binary_internal::"
                "DivFunctor<float> > >("
                "at::TensorIteratorBase&, at::native::BinaryFunctor<float, float, float, "
                "at::native::"
                "binary_internal::DivFunctor<float> > const&)::{lambda(int)#1}>(int, T3)"
            ),
            "elementwise<128, 2, Binary<float,Div>>",
        ),
        (
            (
                "void at::native::reduce_kernel<128, 4, at::native::ReduceOp<c10::"
                "BFloat16, at::native::"
                "func_wrapper_t<c10::BFloat16, at::native::sum_functor<c10::BFloat16, "
                "float, c10::BFloat16>"
                "::operator()(at::TensorIterator&)::{lambda(float, float)#1}>, unsigned "
                "int, c10::BFloat16, "
                "4, 8> >(T3)"
            ),
            "reduce<128, 4, sum<bf16,float>>",
        ),
        (
            (
                "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<at::"
                "native::(anonymous "
                "namespace)::TensorListMetadata<2>, at::native::(anonymous namespace)::"
                "BinaryOpListAlphaFunctor<float, 2, 2, 0>, std::plus<float>, float>(T1, T2, T3, T4)"
            ),
            "multi_tensor_apply<BinaryOpListAlpha<float,2,0>, plus>",
        ),
        # Wrappers give way to what they wrap.
        (
            (
                "void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64_8x5_nn_align1>("
                "cutlass_80_simt_sgemm_128x64_8x5_nn_align1::Params)"
            ),
            "cutlass_80_simt_sgemm_128x64_8x5_nn_align1",
        ),
        # A namespace stays where the function's name is one plain word.
        (
            (
                "std::enable_if<!(false), void>::type internal::gemvx::kernel<int, int, "
                "float, 7, false>(T9)"
            ),
            "gemvx::kernel<int, int, float, 7, false>",
        ),
        (
            "void deep_ep::intranode::dispatch<(int)2, (int)768>(int4 *, float *)",
            "intranode::dispatch<2, 768>",
        ),
        # Long programs: the innermost function, and which of its lambdas.
        (
            (
                "void clover::par_ranged2d_kernel<PdV_kernel(bool, int, double, clover::"
                "Buffer2D<double> &)::"
                "[lambda(int, int) (instance 2)]>(clover::Range2d, T1)"
            ),
            "par_ranged2d_kernel<PdV_kernel#2>",
        ),
        # Repetitions are counted.
        (
            (
                "void (anonymous namespace)::softmax_warp_forward<float, float, float, 9, "
                "false, false>(float*)"
            ),
            "softmax_warp_forward<float*3, 9, false, false>",
        ),
    ],
)
def test_a_short_name_is_the_function_and_what_sets_it_apart(name: str, expected: str) -> None:
    assert short_name(name) == expected


PAIRS = [
    (
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl("
            "at::TensorIteratorBase&, at::native::GeluType)::{lambda()#2}::operator()() "
            "const::{lambda()#2}"
            "::operator()() const::{lambda(float)#1}, std::array<char*, 2ul> >(int, X, "
            "std::array<char*, 2ul>)"
        ),
        (
            "void at::native::vectorized_elementwise_kernel<(int)4, at::native::GeluCUDAKernelImpl("
            "at::TensorIteratorBase &, at::native::GeluType)::[lambda() (instance 2)]::"
            "operator ()() const::"
            "[lambda() (instance 2)]::operator ()() const::[lambda(float) (instance 1)], "
            "std::array<char *, (unsigned long)2>>(int, T2, T3)"
        ),
    ),
    (
        (
            "void at::native::elementwise_kernel<128, 2, at::native::"
            "gpu_kernel_impl_nocast<at::native::"
            "(anonymous namespace)::masked_fill_kernel(at::TensorIterator&, c10::Scalar "
            "const&)::{lambda()#1}"
            "::operator()() const::{lambda()#7}::operator()() const::{lambda(float, bool)#1}>("
            "at::TensorIteratorBase&, X const&)::{lambda(int)#1}>(int, X)"
        ),
        (
            "void at::native::elementwise_kernel<(int)128, (int)2, void at::native::"
            "gpu_kernel_impl_nocast<"
            "at::native::<unnamed>::masked_fill_kernel(at::TensorIterator &, const c10::Scalar &)::"
            "[lambda() (instance 1)]::operator ()() const::[lambda() (instance 7)]::"
            "operator ()() const::"
            "[lambda(float, bool) (instance 1)]>(at::TensorIteratorBase &, const T1 &)::"
            "[lambda(int) (instance 1)]>(int, T3)"
        ),
    ),
    (
        (
            "void at::native::(anonymous namespace)::CatArrayBatchedCopy<at::native::"
            "(anonymous namespace)::"
            "OpaqueType<4u>, unsigned int, 3, 64, 64>(X*)"
        ),
        (
            "void at::native::<unnamed>::CatArrayBatchedCopy<at::native::<unnamed>::"
            "OpaqueType<(unsigned int)4>, unsigned int, (int)3, (int)64, (int)64>(T1 *)"
        ),
    ),
    (
        (
            "void (anonymous namespace)::softmax_warp_backward<float, float, float, 8, "
            "false, false>(float*)"
        ),
        (
            "void <unnamed>::softmax_warp_backward<float, float, float, (int)8, (bool)0, "
            "(bool)0>(T2 *)"
        ),
    ),
    (
        "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)",
        "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<(unsigned long)4096>)",
    ),
    (
        (
            "void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64_8x5_nn_align1>("
            "cutlass_80_simt_sgemm_128x64_8x5_nn_align1::Params)"
        ),
        "void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64_8x5_nn_align1>(T1::Params)",
    ),
    (
        (
            "void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 64, 4, false, false, "
            "cutlass::bfloat16_t, Flash_kernel_traits<64, 128, 64, 4, cutlass::"
            "bfloat16_t> >, false, true, "
            "false, false, true, true, false>(flash::Flash_fwd_params)"
        ),
        (
            "void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<(int)64, (int)128, "
            "(int)64, (int)4, "
            "(bool)0, (bool)0, cutlass::bfloat16_t, Flash_kernel_traits<(int)64, "
            "(int)128, (int)64, (int)4, "
            "cutlass::bfloat16_t>>, (bool)0, (bool)1, (bool)0, (bool)0, (bool)1, (bool)1, (bool)0>("
            "flash::Flash_fwd_params)"
        ),
    ),
]


@pytest.mark.parametrize(("kineto", "nsys"), PAIRS)
def test_kineto_and_nsys_spell_a_kernel_differently_but_its_short_name_is_one(
    kineto: str, nsys: str
) -> None:
    assert short_name(kineto) == short_name(nsys)


def test_names_that_differ_only_where_they_are_cut_stay_apart() -> None:
    name = "void flash_kernel<Traits<64, 128, 64, 4, false, false, half>, false, true, {}, true>()"

    one, other = short_name(name.format("false")), short_name(name.format("true"))

    assert one != other
    assert one[:-4] == other[:-4]
    assert len(one) <= WIDTH


def test_no_two_names_of_our_list_share_a_short_name() -> None:
    with (Path(__file__).parent / "names.csv").open(newline="", encoding="utf-8") as file:
        names = [row["name"] for row in csv.DictReader(file)]

    assert len({short_name(name) for name in names}) == len(names)


@given(st.text())
def test_any_text_has_a_short_name(name: str) -> None:
    assert len(short_name(name)) <= WIDTH


@given(st.text(alphabet="<>(){},:a1_ Z#&*", max_size=200))
def test_unbalanced_brackets_have_a_short_name(name: str) -> None:
    assert len(short_name(name)) <= WIDTH
    assert len(short_name("_Z" + name)) <= WIDTH


@pytest.mark.parametrize("sign", ["<", "(", ")", "{", ",", "a<", "_Z1", "[lambda(", "::", "(int)"])
def test_a_megabyte_of_one_sign_has_a_short_name(sign: str) -> None:
    assert len(short_name("void f<" + sign * (1_000_000 // len(sign)))) <= WIDTH


def test_a_mangled_name_shows_its_function_and_the_identifiers_that_tell() -> None:
    gelu = (
        "_ZN2at6native29vectorized_elementwise_kernelILi4EZZZNS0_26GeluBackwardCUDAKernelImplERNS_18"
        "TensorIteratorBaseENS0_8GeluTypeEENKUlvE0_clEvENKUlvE0_clEvEUlffE_St5arrayIPcLy3EEEEviT0_T1_"
    )

    assert short_name(gelu).startswith("vectorized_elementwise<GeluBackward, ")
    assert (
        short_name("_ZN5aiter32fmha_fwd_hd192_hd128_bf16_causalE.kd")
        == "fmha_fwd_hd192_hd128_bf16_causal"
    )
