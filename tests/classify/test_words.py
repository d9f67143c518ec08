"""Tests of the words of kernel names, and of finding phrases among them."""

from __future__ import annotations

import pytest

from tracelens.classify.words import Vocabulary, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("LayerNormForwardCUDAKernel", "layer norm forward cuda kernel"),
        ("volta_h884gemm_64x128_nn", "volta h 884 gemm 64 x 128 nn"),
        ("fmhaSm100aKernel", "fmha sm 100 a kernel"),
        ("transpose_NCHW2CNHW", "transpose nchw 2 cnhw"),
        ("topKGating", "top k gating"),
        ("", ""),
    ],
)
def test_a_name_is_split_at_case_digits_and_underscores(text: str, expected: str) -> None:
    assert " ".join(words(text)) == expected


def test_the_first_rule_is_served_first_wherever_its_phrase_stands() -> None:
    vocabulary = Vocabulary(
        [("loss", "cross entropy"), ("softmax", "soft max"), ("other", "^ max")]
    )

    assert vocabulary.find(words("softmax_cross_entropy")) == "loss"
    assert vocabulary.find(words("softmax_fwd")) == "softmax"
    assert vocabulary.find(words("SoftMaxFwd")) == "softmax"
    assert vocabulary.find(words("max_fwd")) == "other"
    assert vocabulary.find(words("fwd_max")) is None


def test_a_stem_is_found_within_unknown_words_only() -> None:
    vocabulary = Vocabulary([("conv", "igemm"), ("gemm", "gemm")], stems="gemm")

    assert vocabulary.find(words("hgemm_nt")) == "gemm"
    assert vocabulary.find(words("igemm_fwd")) == "conv"
