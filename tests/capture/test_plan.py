"""What a capture is going to do: device, passes, command lines, and whether it fits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.recorders import Scripted, Toy, known
from tracelens.capture import plan
from tracelens.capture.machine import Gpu, Machine
from tracelens.capture.plan import Asked, Request
from tracelens.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

LAPTOP = Machine(has_torch=True, free_bytes=8 * 10**9)
H200 = Machine(has_torch=True, gpus=(Gpu("NVIDIA H200", 150 * 10**9),), free_bytes=100 * 10**9)
FOLDER = Path("runs/one")


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def those(**recorders: Any) -> None:
        usual = {name: Scripted(name) for name in ("timer", "nsys", "torch", "memory")}
        known(monkeypatch, toy=Toy, **{**usual, **recorders})

    those()
    return those


def request(**options: Any) -> Request:
    return Request("toy", Toy(), "toy", **options)


def names(made: plan.Plan) -> list[str]:
    return [one.name for one in made.passes]


@pytest.mark.usefixtures("there")
def test_on_a_gpu_the_timer_comes_first_then_nsys_then_memory() -> None:
    made = plan.make(request(), H200, FOLDER)

    assert (made.device, names(made), made.notes) == ("cuda", ["timer", "nsys", "memory"], ())


def test_torch_takes_the_place_of_an_nsys_that_cannot_be_used(there: Callable[..., None]) -> None:
    there(nsys=Scripted("nsys", why_not="nsys is not found; install it."))

    made = plan.make(request(), H200, FOLDER)

    assert names(made) == ["timer", "torch", "memory"]
    assert made.notes == ("torch.profiler takes the place of nsys: nsys is not found; install it.",)


def test_without_a_gpu_torch_records_on_the_cpu_and_says_what_that_tells(
    there: Callable[..., None],
) -> None:
    there(memory=Scripted("memory", why_not="no CUDA memory here"))

    made = plan.make(request(), LAPTOP, FOLDER)

    assert (made.device, names(made)) == ("cpu", ["timer", "torch"])
    assert "tells nothing of kernels" in made.notes[-1]


def test_a_recorder_that_is_asked_for_and_cannot_be_used_stops_the_capture(
    there: Callable[..., None],
) -> None:
    there(nsys=Scripted("nsys", why_not="it is not installed."))

    with pytest.raises(CaptureError, match="--with nsys: it is not installed"):
        plan.make(request(asked=(Asked("nsys"),)), H200, FOLDER)


@pytest.mark.usefixtures("there")
def test_a_gpu_that_is_asked_for_has_to_be_there() -> None:
    with pytest.raises(CaptureError, match="torch finds no GPU"):
        plan.make(request(device="cuda"), LAPTOP, FOLDER)


@pytest.mark.usefixtures("there")
def test_the_cpu_can_be_chosen_where_there_is_a_gpu() -> None:
    made = plan.make(request(device="cpu"), H200, FOLDER)

    assert made.device == "cpu"
    assert "by choice" in made.notes[-1]


@pytest.mark.usefixtures("there")
def test_more_processes_than_gpus_run_on_the_cpu_unless_the_gpu_is_asked_for() -> None:
    two = Request("toy", Toy(ranks=2), "toy")

    assert plan.make(two, H200, FOLDER).device == "cpu"
    with pytest.raises(CaptureError, match="2 processes need 2 GPUs"):
        plan.make(Request("toy", Toy(ranks=2), "toy", device="cuda"), H200, FOLDER)


@pytest.mark.usefixtures("there")
def test_a_workload_that_does_not_fit_is_refused_and_the_largest_that_fits_is_offered() -> None:
    with pytest.raises(UsageError) as refused:
        plan.make(Request("toy-huge", Toy(gigabytes=4000), "toy"), LAPTOP, FOLDER)

    assert "toy-huge needs about 3.64 TiB by formula; this machine has 7.45 GiB free" in str(
        refused.value
    )
    assert "This fits: tracelens capture toy-small." in str(refused.value)


@pytest.mark.usefixtures("there")
def test_processes_share_the_memory_of_the_machine() -> None:
    with pytest.raises(UsageError, match=r"14\.9 GiB"):
        plan.make(Request("toy", Toy(gigabytes=4, ranks=4), "toy"), LAPTOP, FOLDER)


@pytest.mark.usefixtures("there")
def test_force_runs_what_may_not_fit_and_says_so() -> None:
    made = plan.make(Request("toy", Toy(gigabytes=4000), "toy", force=True), H200, FOLDER)

    assert made.notes[0].startswith("toy needs about 3.64 TiB by formula; NVIDIA H200 has")


@pytest.mark.usefixtures("there")
def test_a_workload_needs_torch_and_a_program_of_the_users_does_not() -> None:
    bare = Machine(has_torch=False)

    with pytest.raises(CaptureError, match=r"pip install 'tracelens-gpu\[capture\]'"):
        plan.make(request(), bare, FOLDER)
    assert plan.make(Request("train", program=("a.out",)), bare, FOLDER).device == "cpu"


def test_ranks_are_started_by_torchrun_of_the_same_python() -> None:
    command = plan.program(Request("toy", Toy(ranks=4), "toy"))

    assert command[1:] == [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=4",
        "-m",
        "tracelens.capture.child",
    ]


def test_the_users_program_finds_the_hooks_before_its_own_path() -> None:
    own = Request("train", program=("python", "train.py"))
    timer = plan.Planned("timer", Scripted("timer", listens=False), {})

    made = plan.environment(own, timer, Path("/runs/job.json"), {"PYTHONPATH": "/mine", "A": "b"})

    assert made["PYTHONPATH"].split(os.pathsep) == [str(plan.INJECTED), "/mine"]
    assert (made["A"], made["TRACELENS_JOB"]) == ("b", "/runs/job.json")
    assert "TRACELENS_RECORDING" not in made


def test_a_workload_keeps_its_path_and_is_marked_where_a_recorder_listens() -> None:
    made = plan.environment(request(), plan.Planned("torch", Scripted(), {}), Path("job"), {})

    assert made == {"TRACELENS_JOB": "job", "TRACELENS_RECORDING": "torch"}


@pytest.mark.usefixtures("there")
def test_options_of_a_recorder_stand_behind_its_name() -> None:
    assert plan.parse_asked("torch") == Asked("torch", {})
    assert plan.parse_asked("torch:depth") == Asked("torch", {"depth": True})
    assert plan.parse_asked("torch:depth=3,") == Asked("torch", {"depth": "3"})


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("text", "hint"),
    [("toorch", "Did you mean torch"), ("torch:dpth", "Did you mean depth"), ("", "Known")],
)
def test_an_unknown_recorder_or_option_names_the_nearest(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        plan.parse_asked(text)
