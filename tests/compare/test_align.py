"""Which kernel is which: by name, by spelling, by what it is used for, and when nobody can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.loops import Kernel, Loop, side
from tracelens.analyses.compare.align import Match, matched
from tracelens.analyses.compare.rows import of_kernels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TIMES = [1_000] * 4
WIDE = [[64, 512], [512, 2048]]
NARROW = [[64, 2048], [2048, 512]]
OLD = "ampere_sgemm_128x64_tn"
NEW = "nvjet_hsh_128x64_NNT"
OTHER = "nvjet_hsh_256x64_NNT"
GELU = "void at::native::vectorized_elementwise_kernel<4, gelu>(int)"


def found(folder: Path, a: Sequence[Kernel], b: Sequence[Kernel], by: str) -> list[Match]:
    """Return the matches of two loops of these kernels, recorded by nsys or kineto."""
    sides = []
    for name, kernels in (("a", a), ("b", b)):
        loop = Loop(kernels)
        if by == "nsys":
            sides.append(side(loop.write_nsys(folder / f"{name}.sqlite")))
        else:
            sides.append(side(loop.write_kineto(folder / f"{name}.json")))
    return sorted(matched(*sides), key=lambda match: (match.was, match.now))


@pytest.mark.parametrize("by", ["nsys", "kineto"])
def test_kernels_of_one_name_are_the_same(tmp_path: Path, by: str) -> None:
    both = [Kernel(OLD, TIMES), Kernel(GELU, TIMES)]

    assert [m.how for m in found(tmp_path, both, both, by)] == ["name", "name"]


def test_one_kernel_may_be_spelled_in_two_ways(tmp_path: Path) -> None:
    nsys = "void at::native::<unnamed>::CatArrayBatchedCopy<float, 4>(int)"
    kineto = "void at::native::(anonymous namespace)::CatArrayBatchedCopy<float, 4>(int)"
    (match,) = found(tmp_path, [Kernel(nsys, TIMES)], [Kernel(kineto, TIMES)], "nsys")

    assert (match.was, match.now, match.how) == ((nsys,), (kineto,), "spelling")
    assert match.is_same


def test_a_renamed_kernel_is_known_by_its_op_and_shapes(tmp_path: Path) -> None:
    a = [Kernel(OLD, TIMES, dims=WIDE), Kernel("ampere_sgemm_64x64_nt", TIMES, dims=NARROW)]
    # In the other order, so that neither time nor place tells.
    b = [Kernel(OTHER, TIMES, dims=NARROW), Kernel(NEW, TIMES, dims=WIDE)]

    assert found(tmp_path, a, b, "kineto") == [
        Match("gemm", (OLD,), (NEW,), "op and shapes"),
        Match("gemm", ("ampere_sgemm_64x64_nt",), (OTHER,), "op and shapes"),
    ]


def test_one_kernel_may_be_replaced_by_two(tmp_path: Path) -> None:
    a = [Kernel(OLD, TIMES, dims=WIDE), Kernel(OLD, TIMES, dims=NARROW)]
    b = [Kernel(OTHER, TIMES, dims=NARROW), Kernel(NEW, TIMES, dims=WIDE)]
    (match,) = found(tmp_path, a, b, "kineto")

    assert (match.was, set(match.now)) == ((OLD,), {NEW, OTHER})
    assert not match.is_same


def test_without_shapes_the_op_alone_tells(tmp_path: Path) -> None:
    a = [Kernel(OLD, TIMES, op="aten::addmm")]
    b = [Kernel(NEW, TIMES, op="aten::addmm")]
    (match,) = found(tmp_path, a, b, "kineto")

    assert (match.was, match.now, match.how) == ((OLD,), (NEW,), "op")


def test_other_ops_are_no_counterparts(tmp_path: Path) -> None:
    a = [Kernel(OLD, TIMES, op="aten::mm", dims=WIDE)]
    b = [Kernel(NEW, TIMES, op="aten::bmm", dims=WIDE)]

    assert [m.how for m in found(tmp_path, a, b, "kineto")] == ["", ""]


def test_where_no_op_is_known_phase_calls_and_grid_tell(tmp_path: Path) -> None:
    a = [
        Kernel("ampere_sgemm_a", TIMES, grid=100),
        Kernel("ampere_sgemm_b", TIMES, grid=400),
        Kernel("ampere_sgemm_c", TIMES, phase="backward", grid=100),
    ]
    b = [
        Kernel("nvjet_b", TIMES, grid=390),
        Kernel("nvjet_c", TIMES, phase="backward", grid=100),
        Kernel("nvjet_a", TIMES, grid=101),
    ]

    assert [(m.was[0][-1], m.now[0][-1], m.how) for m in found(tmp_path, a, b, "nsys")] == [
        (letter, letter, "phase, calls and grid") for letter in "abc"
    ]


def test_of_one_family_but_not_called_alike_they_are_no_counterparts(tmp_path: Path) -> None:
    a = [Kernel(OLD, TIMES)]
    for other in (Kernel(NEW, TIMES, phase="backward"), Kernel(NEW, TIMES, grid=9)):
        assert [m.how for m in found(tmp_path, a, [other], "nsys")] == ["", ""]
        (tmp_path / "a.sqlite").unlink()
        (tmp_path / "b.sqlite").unlink()


def test_another_family_is_never_a_counterpart(tmp_path: Path) -> None:
    one, two = [Kernel(OLD, TIMES)], [Kernel(GELU, TIMES)]

    assert [(m.was, m.now) for m in found(tmp_path, one, two, "nsys")] == [
        ((), (GELU,)),
        ((OLD,), ()),
    ]


def test_rows_of_kernels_lose_and_double_nothing(tmp_path: Path) -> None:
    a = [Kernel(OLD, TIMES), Kernel(GELU, [5, 6, 7, 8]), Kernel("only_a", [1] * 4)]
    b = [Kernel(NEW, [900] * 4), Kernel(GELU, [6, 6, 7, 8]), Kernel("alone_in_b", [3] * 4)]
    sides = [
        side(Loop(kernels).write_nsys(tmp_path / f"{i}.sqlite")) for i, kernels in enumerate((a, b))
    ]
    rows = of_kernels(*sides)

    assert rows["a_total_ns"].sum() == sides[0].work["time_ns"].sum() == 4_000 + 26 + 4
    assert rows["b_total_ns"].sum() == sides[1].work["time_ns"].sum() == 3_600 + 27 + 12
    verdicts = {(tuple(w), tuple(n)): v for w, n, v in rows.select("was", "now", "verdict").rows()}
    assert verdicts[(OLD,), (NEW,)] == "faster"
    assert verdicts[(GELU,), (GELU,)] == "no difference"
