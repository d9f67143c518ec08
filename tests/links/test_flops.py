"""What ops compute, told from the shapes of their inputs, as torch.utils.flop_counter counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens.links.flops import FORMULAS, flops

Dims = list[Any]
sizes = st.integers(1, 9)


def counted(name: str, dims: Dims, inputs: list[str] | None = None) -> int | None:
    return flops(name, json.dumps(dims), None if inputs is None else json.dumps(inputs))


@pytest.mark.parametrize(
    ("name", "dims", "expected"),
    [
        ("aten::mm", [[2048, 768], [768, 50257]], 2 * 2048 * 768 * 50257),
        ("aten::mm", [[4, 8], [8, 2], [4, 2]], 128),  # mm.out
        ("aten::addmm", [[2], [4, 8], [8, 2], [], []], 128),
        ("aten::_addmm_activation", [[2], [4, 8], [8, 2], [], [], []], 128),
        ("aten::_scaled_mm", [[4, 8], [8, 2], [], [], [], [], [], []], 128),
        ("aten::bmm", [[3, 4, 8], [3, 8, 2]], 3 * 128),
        ("aten::baddbmm", [[3, 4, 2], [3, 4, 8], [3, 8, 2], [], []], 3 * 128),
        ("aten::linear", [[5, 4, 8], [2, 8], [2]], 5 * 128),
        # Shapes that do not fit, or are not there, tell nothing.
        ("aten::mm", [[4, 8], [7, 2]], None),
        ("aten::mm", [[4, 8, 1], [8, 2]], None),
        ("aten::mm", [[], []], None),
        ("aten::mm", [], None),
        ("aten::bmm", [[3, 4, 8], [2, 8, 2]], None),
        ("aten::mm", [[[4, 8], [8, 2]], []], None),
        ("aten::add", [[4, 8], [4, 8]], None),
        ("aten::mm", [[2**32, 2**32], [2**32, 2]], None),
    ],
)
def test_products_count_a_multiplication_and_an_addition(
    name: str, dims: Dims, expected: int | None
) -> None:
    assert counted(name, dims) == expected


def test_what_is_no_list_of_shapes_tells_nothing() -> None:
    assert flops("aten::mm", None, None) is None
    for text in (
        "",
        "null",
        "{}",
        "[[4, 8], [8,",
        "[" * 100_000,
        '[["4", 8], [8, 2]]',
        "[[-4, 8]]",
    ):
        assert flops("aten::mm", text, None) is None


def test_lists_that_were_written_as_texts_are_read() -> None:
    assert flops("aten::mm", '"[[4, 8], [8, 2]]"', None) == 128


Q, K, V = [2, 16, 512, 64], [2, 4, 256, 64], [2, 4, 256, 32]
SCORES, VALUES = 2 * 2 * 16 * 512 * 256 * 64, 2 * 2 * 16 * 512 * 256 * 32


def turned(*shapes: list[int]) -> Dims:
    return [[b, s, h, d] for b, h, s, d in shapes]


@pytest.mark.parametrize("name", [name for name in FORMULAS if "attention" in name])
def test_attention_counts_its_products_of_every_query_with_every_key(name: str) -> None:
    out = [2, 16, 512, 32]
    by_sequence = "::_flash" in name or "::_efficient" in name
    order = turned if by_sequence else lambda *shapes: list(shapes)

    if name.endswith("_backward"):
        # The scores again; gradients of scores and of v; those of q and k.
        assert counted(name, [*order(out, Q, K, V), [], []]) == 3 * SCORES + 2 * VALUES
    else:
        assert counted(name, [*order(Q, K, V), [], []]) == SCORES + VALUES


def test_attention_over_sequences_of_unknown_lengths_tells_nothing() -> None:
    assert counted("aten::_flash_attention_forward", [[900, 16, 64]] * 3 + [[5], [5]]) is None
    assert counted("aten::_cudnn_attention_forward", [[900, 16, 64]] * 3) is None


def convolution(
    x: list[int], w: list[int], *, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    transposed: bool = False,
) -> list[int | None]:  # fmt: skip
    """Return what is counted forward, and backward for input, weight and both."""
    axes = len(x) - 2
    parts = [v if isinstance(v, list) else [v] * axes for v in (stride, padding, dilation)]
    scalars = [*map(str, parts), str(transposed), str([0] * axes), "1"]
    forward = counted(
        "aten::convolution", [x, w, [], [], [], [], [], [], []], ["", "", "", *scalars]
    )
    assert counted("aten::_convolution", [x, w], ["", "", "", *scalars, "False"]) == forward
    out = out_size(x, w, *parts, transposed=transposed)
    found = [forward]
    for mask in ("[True, False, True]", "[False, True, True]", "[True, True, False]"):
        inputs = ["", "", "", "[0]", *scalars, mask]
        found.append(counted("aten::convolution_backward", [out, x, w], inputs))
    return found


def out_size(
    x: list[int], w: list[int], stride: list[int], padding: list[int], dilation: list[int],
    *, transposed: bool,
) -> list[int]:  # fmt: skip
    sizes = []
    for size, taps, s, p, d in zip(x[2:], w[2:], stride, padding, dilation, strict=True):
        if transposed:
            sizes.append((size - 1) * s - 2 * p + d * (taps - 1) + 1)
        else:
            # Count the places of the window one by one.
            places = [at for at in range(-p, size + p) if at + d * (taps - 1) < size + p]
            sizes.append(len(places[::s]))
    return [x[0], w[1] if transposed else w[0], *sizes]


def test_a_convolution_counts_every_tap_at_every_place() -> None:
    # 2 images of 3 x 32 x 32, 8 windows of 3 x 3 x 3, every second place: 16 x 16 of them.
    once = 2 * (2 * 16 * 16) * 8 * (3 * 3 * 3)

    assert convolution([2, 3, 32, 32], [8, 3, 3, 3], stride=2, padding=1) == [
        once, once, once, 2 * once,
    ]  # fmt: skip


def test_a_transposed_convolution_counts_every_tap_at_every_place_of_its_input() -> None:
    once = 2 * (2 * 7 * 7) * 16 * (4 * 2 * 2)

    assert convolution([2, 16, 7, 7], [16, 4, 2, 2], stride=2, transposed=True) == [
        once, once, once, 2 * once,
    ]  # fmt: skip


def test_groups_see_their_own_channels_only() -> None:
    # 4 groups of 8 channels: each window has 2 of them. Both gradients count alike.
    once = 2 * (2 * 7 * 7) * 16 * (2 * 3 * 3)

    assert convolution([2, 8, 9, 9], [16, 2, 3, 3]) == [once, once, once, 2 * once]


@given(
    st.lists(st.tuples(sizes, st.integers(1, 3), st.integers(1, 3), st.integers(0, 2)), min_size=1,
             max_size=3),
    sizes,
    sizes,
)  # fmt: skip
def test_the_size_of_a_convolutions_output_is_that_of_its_windows(
    axes: list[tuple[int, int, int, int]], channels: int, windows: int
) -> None:
    x = [2, channels, *(size + 6 for size, *_ in axes)]
    w = [windows, channels, *(taps for _, taps, *_ in axes)]
    stride, padding = [s for _, _, s, _ in axes], [p for *_, p in axes]

    forward, *_ = convolution(x, w, stride=stride, padding=padding, dilation=2)

    out = out_size(x, w, stride, padding, [2] * len(axes), transposed=False)
    expected = 2
    for size in (2, *out[2:], *w):
        expected *= size
    assert forward == expected


def test_a_convolution_without_its_scalar_inputs_tells_nothing() -> None:
    dims = [[2, 3, 32, 32], [8, 3, 3, 3], [8]]

    assert counted("aten::convolution", dims) is None
    assert (
        counted("aten::convolution", dims, ["", "", "", "[0, 0]", "[0, 0]", "[1, 1]", "False"])
        is None
    )
    assert counted("aten::convolution_backward", dims, ["", "", ""]) is None
