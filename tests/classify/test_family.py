"""Tests of kernel families: the labelled lists, the three spellings, and what outweighs what."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens.classify import FAMILIES, family

HERE = Path(__file__).parent
CORPUS = HERE.parents[1].parent / "shared" / "corpus" / "kernel_names.csv"

Row = dict[str, str]


def read(path: Path, op: str) -> list[tuple[Row, str]]:
    """Read labelled names, each with the family it is given."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(row, family(row["name"], row[op] or None)) for row in csv.DictReader(file)]


def right(row: Row, given_family: str) -> bool:
    """Tell whether the family is the label, or one that the label's author accepts as well."""
    return given_family in {row["family"], *row["also_acceptable"].split(",")}


def test_our_list_of_names_has_the_families_it_says() -> None:
    wrong = [
        (given_family, row["family"], row["name"])
        for row, given_family in read(HERE / "names.csv", "op")
        if not right(row, given_family)
    ]

    assert wrong == []


def test_our_list_has_every_family_but_no_name_twice() -> None:
    with (HERE / "names.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    assert len(rows) >= 250
    assert len({row["name"] for row in rows}) == len(rows)
    assert {row["family"] for row in rows} == set(FAMILIES)


def test_the_labelled_corpus_is_right_by_97_percent_and_95_in_each_large_family() -> None:
    if not CORPUS.exists():
        pytest.skip(f"{CORPUS} is not here; it is shared beside the project, not part of it")

    by_family: dict[str, list[bool]] = defaultdict(list)
    for row, given_family in read(CORPUS, "linked_cpu_op"):
        by_family[row["family"]].append(right(row, given_family))
    every = [each for each_family in by_family.values() for each in each_family]
    low = {
        name: sum(rights) / len(rights)
        for name, rights in by_family.items()
        if len(rights) >= 10 and sum(rights) < 0.95 * len(rights)
    }

    assert sum(every) >= 0.97 * len(every)
    assert low == {}


GELU_BACKWARD = (
    (
        "void at::native::vectorized_elementwise_kernel<4, at::native::GeluBackwardCUDAKernelImpl("
        "at::TensorIteratorBase&, at::native::GeluType)::{lambda()#2}::operator()() "
        "const::{lambda()#2}"
        "::operator()() const::{lambda(float, float)#1}, std::array<char*, 3ul> >(int, T2, T3)"
    ),
    (
        "void at::native::vectorized_elementwise_kernel<(int)4, at::native::"
        "GeluBackwardCUDAKernelImpl("
        "at::TensorIteratorBase &, at::native::GeluType)::[lambda() (instance 2)]::"
        "operator ()() const::"
        "[lambda() (instance 2)]::operator ()() const::[lambda(float, float) (instance 1)], "
        "std::array<char *, (unsigned long)3>>(int, T2, T3)"
    ),
    (
        "_ZN2at6native29vectorized_elementwise_kernelILi4EZZZNS0_26GeluBackwardCUDAKernelImplERNS_18"
        "TensorIteratorBaseENS0_8GeluTypeEENKUlvE0_clEvENKUlvE0_clEvEUlffE_St5arrayIPcLy3EEEEviT0_T1_"
    ),
)
COPY = (
    (
        "void at::native::vectorized_elementwise_kernel<4, at::native::bfloat16_copy_kernel_cuda("
        "at::TensorIteratorBase&)::{lambda(float)#1}, std::array<char*, 2ul> >(int, T2, T3)"
    ),
    (
        "void at::native::vectorized_elementwise_kernel<(int)4, at::native::"
        "bfloat16_copy_kernel_cuda("
        "at::TensorIteratorBase &)::[lambda(float) (instance 1)], std::array<char *, "
        "(unsigned long)2>>"
        "(int, T2, T3)"
    ),
    (
        "_ZN2at6native29vectorized_elementwise_kernelILi4EZNS0_25bfloat16_copy_kernel_cudaERNS_18"
        "TensorIteratorBaseEEUlfE_St5arrayIPcLm2EEEEviT0_T1_"
    ),
)
SOFTMAX = (
    (
        "void (anonymous namespace)::softmax_warp_forward<float, float, float, 8, false, false>("
        "float*, float const*, int, int, int, bool const*, int, bool)"
    ),
    (
        "void <unnamed>::softmax_warp_forward<float, float, float, (int)8, (bool)0, (bool)0>("
        "T2 *, const T1 *, int, int, int, const bool *, int, bool)"
    ),
    "_ZN36_GLOBAL__N__d8d9e5c0_10_SoftMax_cu_x20softmax_warp_forwardIfffLi8ELb0ELb0EEEvPT0_PKT_iii",
)


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [(GELU_BACKWARD, "elementwise"), (COPY, "copy"), (SOFTMAX, "softmax")],
)
def test_a_kernel_has_one_family_however_it_is_spelled(
    spellings: tuple[str, ...], expected: str
) -> None:
    assert [family(name) for name in spellings] == [expected] * 3


def test_the_functor_decides_inside_an_elementwise_kernel() -> None:
    kernel = "void at::native::elementwise_kernel<128, 4, gpu_kernel_impl_nocast<at::native::{}"

    assert family(kernel.format("direct_copy_kernel_cuda(at::TensorIteratorBase&)")) == "copy"
    assert family(kernel.format("CUDAFunctor_add<float>")) == "elementwise"
    assert (
        family(kernel.format("BinaryFunctor<float, float, float, MulFunctor<float>>"))
        == "elementwise"
    )
    assert family(kernel.format("cos_kernel_cuda(at::TensorIteratorBase&)")) == "elementwise"


def test_template_arguments_of_other_kernels_decide_nothing() -> None:
    reduce = "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, {}<float>>>(T3)"

    assert family(reduce.format("at::native::binary_internal::MulFunctor")) == "reduction"
    assert family(reduce.format("at::native::NormTwoOps")) == "reduction"
    assert (
        family("void layer_norm_kernel<SoftmaxTraits, GemmShape<128, 64>>(int)") == "normalization"
    )


@pytest.mark.parametrize(
    ("name", "op", "expected"),
    [
        ("Kernel2", "aten::addmm", "gemm"),
        ("Kernel2", "aten::convolution_backward", "conv"),
        ("kernel_0", "aten::native_layer_norm", "normalization"),
        ("vectorized_elementwise_kernel", "aten::copy_", "copy"),
        ("vectorized_elementwise_kernel", None, "elementwise"),
        ("void compute_it<long>(long*)", "vllm::moe_forward", "moe"),
        ("mystery", "autograd::engine::evaluate_function: ConvolutionBackward0", "conv"),
        ("mystery", "Torch-Compiled Region: 0/0", "other"),
        ("mystery", None, "other"),
    ],
)
def test_the_operator_decides_where_the_name_says_nothing(
    name: str, op: str | None, expected: str
) -> None:
    assert family(name, op) == expected


def test_a_name_that_says_what_it_is_outweighs_the_operator() -> None:
    gemm = "void cutlass::Kernel<cutlass_80_tensorop_s1688gemm_128x128_16x4_nn_align4>(Params)"

    assert family(gemm, "aten::cudnn_convolution") == "gemm"
    assert family("nchwToNhwcKernel<float>", "aten::cudnn_convolution") == "copy"
    assert family("Memcpy HtoD (Pinned -> Device)", "aten::add") == "memcpy"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transform_the_grid", "elementwise"),
        ("format_report", "other"),
        ("remove_ghosts", "other"),
        ("property_table", "other"),
        ("convergence_check", "other"),
        ("resort_particles", "other"),
        ("triton_poi_fused_addmm_gelu_view_15", "triton_pointwise"),
        ("triton_red_fused__softmax_native_layer_norm_3", "triton_reduction"),
        ("my_rmsnorm_fwd", "normalization"),
        ("fused_softmax", "softmax"),
        ("mySoftmaxKernel", "softmax"),
        ("hgemm_tuned", "gemm"),
        ("apply_rotary_embedding", "elementwise"),
    ],
)
def test_words_count_and_not_letters_within_them(name: str, expected: str) -> None:
    assert family(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "void at::native::<unnamed>::multi_tensor_apply_kernel<at::native::<unnamed>::Fused",
            "optimizer",
        ),
        ("void at::native::(anonymous namespace)::CatArrayBatched", "copy"),
        ("void at::native::vectorized_elementwise_kernel<4, at", "elementwise"),
        (
            "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwd",
            "attention",
        ),
    ],
)
def test_names_cut_by_a_profiler_still_tell(name: str, expected: str) -> None:
    assert family(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "<",
        ">>>>((({{{[[[",
        "_Z",
        "_ZN",
        "_ZN99999999999999999999foo",
        "a" * 1_000_000,
        "<" * 1_000_000,
        " " * 1_000_000 + "gemm",
        "[lambda(" * 100_000,
        "(int)" * 200_000,
        "_ZN" + "1a" * 500_000,
        "\0\ud800\N{SNOWMAN}",
    ],
    ids=lambda name: repr(name[:12]),
)
def test_hostile_names_are_classified_too(name: str) -> None:
    assert family(name) in FAMILIES
    assert family("x", name) in FAMILIES


@given(st.text(), st.none() | st.text())
def test_any_text_has_a_family(name: str, op: str | None) -> None:
    assert family(name, op) in FAMILIES


pieces = st.sampled_from(
    [
        "void ",
        "at::native::",
        "_ZN",
        "<",
        ">",
        "(",
        ")",
        "{lambda(float)#1}",
        "[lambda(int) (instance 2)]",
        "operator()",
        "::",
        ", ",
        "(int)4",
        "gemm",
        "(anonymous namespace)",
        "<unnamed>",
        "4",
        "Kernel2",
    ]
)


@given(st.lists(pieces, max_size=40).map("".join))
def test_any_shuffling_of_a_name_has_a_family(name: str) -> None:
    assert family(name) in FAMILIES
