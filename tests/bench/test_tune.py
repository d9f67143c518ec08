"""Tuning: the same measurements give the same answer, killed or not; none makes it slower."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens import kernel as kernels
from tracelens import registry, tuned
from tracelens.bench import sweep, tune
from tracelens.bench.cell import Cell, Failure, Pair, Row
from tracelens.bench.sweep import Found
from tracelens.bench.tune import Contest, Journal, Task, Tried, Tuner
from tracelens.errors import CaptureError
from tracelens.kernel import Kernel, Tuning
from tracelens.tuned import Circumstances

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracelens.kernel import Config, Shape

H200 = Circumstances("NVIDIA H200", "9.0", "3.6.0")
DEFAULT = {"BLOCK": 64, "num_warps": 4}
SHAPE = {"rows": 8, "columns": 8192}
TASK = Task("made_up", "forward", "columns=8192 bf16", SHAPE, "bf16", H200, "source")


def coarse(_shape: Shape, _dtype: str) -> Iterable[Config]:
    return [{"BLOCK": block, "num_warps": 4} for block in (16, 64, 256)]


def fine(best: Config, _shape: Shape, _dtype: str) -> Iterable[Config]:
    for block in (best["BLOCK"] // 2, best["BLOCK"] * 2):
        yield {"BLOCK": block, "num_warps": best["num_warps"]}
    for warps in (2, 8):
        yield {"BLOCK": best["BLOCK"], "num_warps": warps}


TUNING = Tuning(
    key=lambda shape, dtype: f"columns={shape['columns']} {dtype}",
    default=lambda _shape, _dtype: DEFAULT,
    coarse=coarse,
    fine=fine,
)
ALL = [
    {"BLOCK": 1 << block, "num_warps": warps} for block in range(12) for warps in (1, 2, 4, 8, 16)
]


class Bench:
    """A made-up GPU: configuration -> ratio of its time to the default's; None: it fails."""

    def __init__(self, truth: dict[str, float | None], noise: float = 0.0) -> None:
        self.truth = truth
        self.noise = noise
        self.draw = random.Random(0)  # noqa: S311 (no secret)
        self.asked: list[str] = []

    def ratio(self, config: Config) -> float | None:
        return self.truth.get(kernels.spell(config), 1.5)

    def measure(self, configs: Sequence[Config]) -> list[Tried]:
        found = []
        for config in configs:
            self.asked.append(kernels.spell(config))
            ratio = self.ratio(config)
            if ratio is not None:
                ratio *= 1 + self.noise * self.draw.uniform(-1, 1)
            found.append(Tried(dict(config), ratio, "" if ratio else "it crashed"))
        return found

    def contest(self, config: Config) -> Contest:
        """Tell the truth: faster if it is by more than the noise."""
        ratio = self.ratio(config) or 9.0
        return Contest(
            ratio, 1.0, ratio, ratio - self.noise, ratio + self.noise,
            is_faster=ratio < 1 - self.noise,
        )  # fmt: skip

    def search(self) -> tune.Outcome:
        return tune.search(TUNING, SHAPE, "bf16", self.measure, self.contest)


def test_the_best_of_the_coarse_ones_leads_to_a_better_neighbour() -> None:
    bench = Bench(
        {
            "BLOCK=256,num_warps=4": 0.8,
            "BLOCK=512,num_warps=4": 0.7,
            "BLOCK=512,num_warps=8": 0.6,
            "BLOCK=128,num_warps=4": 0.9,
        }
    )

    found = bench.search()

    assert found.config == {"BLOCK": 512, "num_warps": 8}
    assert found.contest is not None
    assert len(bench.asked) == len(set(bench.asked))  # nothing is measured twice
    assert "BLOCK=64,num_warps=4" not in bench.asked  # the default is beside all of them


def test_the_default_has_neighbours_too() -> None:
    assert Bench({"BLOCK=64,num_warps=8": 0.9}).search().config == {"BLOCK": 64, "num_warps": 8}


def test_where_nothing_is_faster_the_default_is_kept_uncontested() -> None:
    found = Bench({}).search()

    assert found.config == DEFAULT
    assert found.contest is None


def test_what_seemed_faster_and_is_not_is_not_taken() -> None:
    bench = Bench({"BLOCK=256,num_warps=4": 0.99}, noise=0.05)

    found = bench.search()

    assert found.config == DEFAULT


def test_candidates_that_fail_are_none() -> None:
    bench = Bench({kernels.spell(config): None for config in ALL})

    found = bench.search()

    assert found.config == DEFAULT
    assert {one.why for one in found.tried} == {"it crashed"}


@given(
    st.dictionaries(
        st.sampled_from([kernels.spell(config) for config in ALL]),
        st.one_of(st.none(), st.floats(0.1, 10)),
    ),
    st.floats(0, 0.3),
)
def test_what_is_taken_is_never_slower_than_the_default(
    truth: dict[str, float | None], noise: float
) -> None:
    first, second = (Bench(truth, noise).search() for _ in range(2))

    taken = Bench(truth).ratio(first.config)
    assert first == second
    assert first.config == DEFAULT or (taken is not None and taken < 1)


def test_a_candidate_unlike_the_default_is_an_error_that_names_it() -> None:
    odd = replace(TUNING, coarse=lambda _shape, _dtype: [{"TILE": 1}])

    with pytest.raises(CaptureError, match="TILE=1"):
        tune.search(odd, SHAPE, "bf16", Bench({}).measure, Bench({}).contest)


def test_shapes_of_one_key_are_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(
        axes={"rows": None, "columns": None},
        shapes=(),
        dtypes=("bf16",),
        operations={},
        tuning={"forward": TUNING},
        function=lambda: None,
    )
    like = Cell(kernel="made_up", operation="forward", shape=SHAPE, dtype="bf16")
    plan = [
        like,
        replace(like, shape={"rows": 9, "columns": 8192}),
        replace(like, shape={"rows": 8, "columns": 64}),
        replace(like, dtype="fp16"),
        replace(like, operation="backward"),
    ]

    found = tune.tasks("made_up", kernel, plan, H200, "source")

    assert found[0] == TASK
    assert [one.key for one in found] == [
        "columns=8192 bf16",
        "columns=64 bf16",
        "columns=8192 fp16",
    ]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Let every cell be measured by a made-up GPU."""
    bench = Bench({"BLOCK=256,num_warps=4": 0.8, "BLOCK=512,num_warps=4": 0.7})

    def measured(cell: Cell, _silence_s: float = 0) -> Found:
        assert cell.config == "default"
        found = Found(device=H200.gpu, is_gpu=True)
        found.rows.append(row(cell, kernels.OURS, 1.0))
        for name, config in cell.candidates.items():
            bench.asked.append(name)
            ratio = bench.ratio(config)
            if ratio is None:
                why = Failure(implementation=name, stage="check", error="Wrong", message="0.5 off")
                found.failures.append(why)
            else:
                found.rows.append(row(cell, name, ratio))
        return found

    monkeypatch.setattr(sweep, "measured", measured)
    return bench


def row(cell: Cell, name: str, ratio: float) -> Row:
    verdict: Any = "faster" if ratio < 0.99 else "no difference"
    return Row(
        kernel=cell.kernel, operation=cell.operation, shape=cell.shape, dtype=cell.dtype,
        implementation=name, device=H200.gpu, quantity="kernel_time", l2="cold",
        clock="blocked stream", n=9, samples_s=(ratio,), median_s=ratio, low_s=ratio, high_s=ratio,
        mad_s=0.0, p5_s=ratio, p95_s=ratio, p99_s=ratio, settled=True,
        pair=None if name == kernels.OURS else Pair(
            other=kernels.OURS, ratio=ratio, low=ratio, high=ratio, floor=0.01, rounds=9,
            verdict=verdict,
        ),
    )  # fmt: skip


def tuner(file: Path) -> Tuner:
    return Tuner(Cell(kernel="", shape={}, dtype=""), Journal.opened(file), lambda _line: None)


def test_an_entry_says_what_was_taken_for_what_and_how_sure_it_is(
    gpu: Bench, tmp_path: Path
) -> None:
    entry = tuner(tmp_path / "journal").tune(TASK, TUNING)

    assert entry.config == {"BLOCK": 512, "num_warps": 4}
    assert entry.default == DEFAULT
    assert (entry.median_s, entry.default_median_s, entry.ratio) == (0.7, 1.0, 0.7)
    assert (entry.gpu, entry.capability, entry.triton) == ("NVIDIA H200", "9.0", "3.6.0")
    assert entry.of == ("made_up", "forward", "columns=8192 bf16")
    assert entry.source == "source"
    assert entry.tried == len(set(gpu.asked))


def test_where_the_default_is_best_it_is_what_is_written(gpu: Bench, tmp_path: Path) -> None:
    gpu.truth = {}

    entry = tuner(tmp_path / "journal").tune(TASK, TUNING)

    assert entry.config == entry.default
    assert entry.median_s == entry.default_median_s == 1.0


def test_a_search_that_was_killed_goes_on_and_ends_as_it_would_have(
    gpu: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "_TOGETHER", 2)
    whole = tuner(tmp_path / "straight").tune(TASK, TUNING)
    in_all = list(gpu.asked)
    for after in range(1, len(set(in_all))):
        gpu.asked.clear()
        file = tmp_path / f"killed-{after}"
        first = tuner(file)
        add = Journal.add

        def dies(self: Journal, task: Task, tried: Sequence[Tried], limit: int = after) -> None:
            add(self, task, tried)  # noqa: B023 (called before the next turn)
            if len(self.lines) >= limit:
                raise KeyboardInterrupt

        monkeypatch.setattr(Journal, "add", dies)
        with pytest.raises(KeyboardInterrupt):
            first.tune(TASK, TUNING)
        monkeypatch.setattr(Journal, "add", add)
        with file.open("ab") as stream:
            stream.write(b'{"task": {"kernel": "made_up"')  # cut short by the kill

        again = tuner(file).tune(TASK, TUNING)

        assert replace(again, made="") == replace(whole, made="")
        searched = [name for name in gpu.asked if name != kernels.spell(whole.config)]
        assert len(searched) == len(set(searched))  # what was measured before is not again


def test_measurements_of_another_triton_or_source_are_not_taken(gpu: Bench, tmp_path: Path) -> None:
    journal = Journal.opened(tmp_path / "journal")
    journal.add(replace(TASK, source="older"), [Tried({"BLOCK": 16, "num_warps": 4}, 0.1)])

    entry = tuner(tmp_path / "journal").tune(TASK, TUNING)

    assert entry.config == {"BLOCK": 512, "num_warps": 4}


def test_a_journal_ends_with_its_last_task(tmp_path: Path) -> None:
    file, other = tmp_path / "journal", replace(TASK, operation="backward")
    journal = Journal.opened(file)
    journal.add(TASK, [Tried(DEFAULT, 1.0)])
    journal.add(other, [Tried(DEFAULT, 1.0)])

    journal.forget(TASK)

    assert not Journal.opened(file).known(TASK)
    assert Journal.opened(file).known(other)
    journal.forget(other)
    assert not file.exists()


def test_wrong_results_are_no_candidate(gpu: Bench, tmp_path: Path) -> None:
    gpu.truth = {"BLOCK=16,num_warps=4": None, "BLOCK=256,num_warps=4": 0.9}

    tuner(tmp_path / "journal").tune(TASK, TUNING)

    (line,) = [
        line
        for text in (tmp_path / "journal").read_text(encoding="utf-8").splitlines()
        if (line := json.loads(text))["tried"]["config"]["BLOCK"] == 16
    ]
    assert line["tried"]["ratio"] is None
    assert line["tried"]["why"] == "check: 0.5 off"


def test_a_default_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_cell: Cell, _silence_s: float = 0) -> Found:
        why = Failure(implementation=kernels.OURS, stage="build", message="out of shared memory")
        return Found(failures=[why], device=H200.gpu)

    monkeypatch.setattr(sweep, "measured", fails)
    with pytest.raises(CaptureError, match="the default configuration fails: build: out of shared"):
        tuner(tmp_path / "journal").tune(TASK, TUNING)


def test_what_was_tuned_is_what_the_kernel_takes(
    gpu: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "_current", lambda: 0)
    monkeypatch.setattr(tuned, "_here", lambda _number: H200)
    monkeypatch.setattr(tuned, "source_of", lambda _kernel: "source")

    tuned.save(tuner(tmp_path / "journal").tune(TASK, TUNING), tuned.place(H200.gpu))

    found = tuned.chosen("made_up", "forward", TUNING.key(SHAPE, "bf16"), DEFAULT)
    assert found == {"BLOCK": 512, "num_warps": 4}


def test_the_command_keeps_what_it_tunes_and_tunes_it_once(
    gpu: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.asking import Shell
    from tracelens.bench import plan, probe

    kernel = Kernel(
        axes={"rows": None, "columns": None},
        shapes=(SHAPE,),
        dtypes=("bf16",),
        operations={"forward": _operation(), "backward": _operation()},
        tuning={"forward": TUNING},
        function=lambda: None,
    )
    monkeypatch.setattr(plan, "loaded", lambda _names: {"made_up": kernel})
    monkeypatch.setattr(registry, "names", _names(registry.names))
    monkeypatch.setattr(probe, "circumstances", lambda _device: H200)
    monkeypatch.setattr(tuned, "source_of", lambda _kernel: "source")
    shell = Shell(capsys)

    first = shell("bench", "made-up", "--tune", "-f", "json")
    asked = len(gpu.asked)
    second = shell("bench", "made-up", "--tune", "-f", "json")
    third = shell("bench", "made-up", "--tune", "--force")

    assert first.status == second.status == third.status == 0, first.err
    (told,) = first.json["tables"]["tuned"]
    assert (told["state"], told["change"]) == ("tuned", pytest.approx(-0.3))
    assert second.json["tables"]["tuned"][0]["state"] == "tuned before"
    assert len(gpu.asked) == 2 * asked
    assert [file.name for file in tuned.folder().iterdir()] == [tuned.place(H200.gpu).name]

    (entry,) = tuned.load(tuned.place(H200.gpu)).entries
    tuned.save(replace(entry, triton="3.5.0"), tuned.place(H200.gpu))
    stale = shell("bench", "made-up", "--tune", "-f", "json")
    assert "tuned for triton 3.5.0, and this is 3.6.0: tuned anew" in stale.err
    assert stale.json["tables"]["tuned"][0]["state"] == "tuned"
    nothing = shell("bench", "made-up", "--tune", "--operation", "backward")
    assert nothing.status == 2
    assert "nothing to tune but forward" in nothing.err


def _operation() -> Any:
    ours = kernels.Implementation("ours", lambda _inputs, _shape: dict)
    return kernels.Operation(
        work=lambda _shape, _dtype: None,  # type: ignore[arg-type,return-value]
        inputs=lambda _shape, _dtype, _device, _seed: {},
        reference=lambda _inputs, _shape: {},
        implementations={kernels.OURS: ours},
    )


def _names(real: Any) -> Any:
    return lambda kind: ("made_up",) if kind == "kernel" else real(kind)


def test_without_a_gpu_there_is_nothing_to_tune_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracelens.bench import probe

    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    with pytest.raises(CaptureError, match=r"Tuning needs an NVIDIA GPU: torch .* sees 0 GPUs"):
        probe.circumstances("auto")
