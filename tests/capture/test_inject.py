"""The user's own program: which steps, phases and layers are seen in it, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capture.injected import LOOP, STEP, TRAIN, ran
from tracelens.capture.inject.cycles import Ends, Rounds
from tracelens.capture.plan import INJECTED
from tracelens.links.linked import link
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path

NEXT_STEP = ["step", "step > optimizer", *STEP[1:]]
"""A step after the first: it begins with the zero_grad that follows the optimizer's step."""


def phases(marks: list[str]) -> list[str]:
    """Return the steps and the phases in them: `step`, `forward`, `backward`, ..."""
    return [path.split(" > ")[-1] for path in marks if path.count(" > ") < 2]


# Steps


def test_a_loop_is_recorded_as_it_stands(tmp_path: Path) -> None:
    done = ran(tmp_path, LOOP + TRAIN)

    assert done.status == 0, done.output
    assert "end of the program" not in done.output
    assert done.outcome.failure is None
    assert (done.outcome.rank, done.outcome.peak_bytes) == (None, None)
    assert (len(done.outcome.warmup_ns), len(done.outcome.steps_ns)) == (1, 2)
    assert done.marks() == NEXT_STEP * 2
    linked = link(open_trace(done.folder / "trace.json.gz"))
    assert linked.steps["source"].to_list() == ["ranges", "ranges"]


def test_without_a_recorder_that_listens_nothing_is_marked_and_steps_are_timed(
    tmp_path: Path,
) -> None:
    look = """
    from torch.nn.modules import module
    def hooks():
        return len(module._global_forward_pre_hooks)
    print("before", hooks())
    """
    done = ran(
        tmp_path,
        LOOP + look + TRAIN + "    print('after', hooks())\n",
        recorder="timer",
        stop=False,
        steps=5,
    )

    assert "before 1" in done.output
    assert "after 0" in done.output
    assert "end of the program" in done.output
    assert len(done.outcome.steps_ns) >= 5


def test_the_program_may_go_on_after_its_recorded_steps(tmp_path: Path) -> None:
    done = ran(tmp_path, LOOP + TRAIN, stop=False)

    assert "end of the program" in done.output
    assert len(done.outcome.steps_ns) == 2


def test_steps_that_the_program_marks_are_its_steps(tmp_path: Path) -> None:
    """GIVEN two calls of the optimizer in a step, and a model that is tried before."""
    program = """
    import tracelens
    model(data[0])
    for batch in data:
        tracelens.step()
        for half in batch.split(1):
            model(half).sum().backward()
            optimizer.step()
    """
    done = ran(tmp_path, LOOP + program)

    assert len(done.outcome.warmup_ns) == 1
    assert phases(done.marks()) == ["step", *["forward", "backward", "optimizer"] * 2] * 2


def test_the_last_step_of_a_program_ends_with_it(tmp_path: Path) -> None:
    program = """
    import tracelens
    for batch in data[:3]:
        tracelens.step()
        model(batch).sum().backward()
    """
    done = ran(tmp_path, LOOP + program)

    assert done.status == 0
    assert len(done.outcome.steps_ns) == 2
    assert phases(done.marks()) == ["step", "forward", "backward"] * 2


def test_accumulated_gradients_are_one_step(tmp_path: Path) -> None:
    program = """
    for n, batch in enumerate(data):
        model(batch).mean().backward()
        if n % 3 == 2:
            optimizer.step()
    """
    done = ran(tmp_path, LOOP + program)

    assert phases(done.marks()) == ["step", *["forward", "backward"] * 3, "optimizer"] * 2


def test_optimizers_that_take_turns_make_one_step(tmp_path: Path) -> None:
    """GIVEN a generator and a critic, whose losses are modules."""
    program = """
    critic = nn.Sequential(nn.Linear(1, 1))
    optimizers = [optimizer, torch.optim.Adam(critic.parameters())]
    loss = nn.MSELoss()
    for batch in data:
        for one in optimizers:
            loss(critic(model(batch)), torch.ones(2, 1)).backward()
            one.step()
    """
    done = ran(tmp_path, LOOP + program)

    turn = ["forward", "forward", "loss", "backward", "optimizer"]
    assert phases(done.marks()) == ["step", *turn * 2] * 2


def test_a_step_that_a_grad_scaler_skips_is_a_step(tmp_path: Path) -> None:
    program = """
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    for n, batch in enumerate(data):
        optimizer.zero_grad()
        scaler.scale(model(batch).mean() * (1e30 if n == 2 else 1)).backward()
        scaler.step(optimizer)
        print("scale", scaler.get_scale())
        scaler.update()
    """
    done = ran(tmp_path, LOOP + program, warmup=0, steps=4)

    assert len(set(done.output.split("scale ")[1:5])) > 1, "one step was skipped"
    assert len(done.outcome.steps_ns) == 4


def test_inference_has_a_step_for_each_call_of_its_model(tmp_path: Path) -> None:
    program = """
    model.eval()
    prepare = nn.Dropout()
    with torch.inference_mode():
        for batch in data[:4]:
            prepare(batch)
            model(batch).argmax()
    """
    done = ran(tmp_path, LOOP.replace("optimizer =", "# ") + program, steps=3)

    assert len(done.outcome.steps_ns) == 3
    assert phases(done.marks()) == [*["step", "forward", "forward"] * 2, "step", "forward"]
    assert done.marks().count("step > forward > Model") == 3


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True), st.integers(1, 5))
def test_rounds_of_any_order_end_once_each(order: list[int], rounds: int) -> None:
    ends, begins = Ends[int](), Rounds[int]()
    told = [ends.ends(event, len(order)) for _ in range(rounds) for event in order]
    began = [begins.begins(event) for _ in range(rounds) for event in order]

    assert told == ([False] * (len(order) - 1) + [True]) * rounds
    assert began == ([True] + [False] * (len(order) - 1)) * rounds


def test_a_round_is_known_by_the_first_event_that_repeats() -> None:
    """GIVEN three optimizers of which the program uses two, and later the third."""
    ends = Ends[str]()

    told = [ends.ends(event, 3) for event in "ababababcccc"]

    first, later, third = [False, False, True, True], [False, True] * 2, [False, True, True, True]
    assert told == first + later + third


# Phases and layers


def test_phases_that_the_program_marks_are_not_marked_again(tmp_path: Path) -> None:
    program = """
    import tracelens
    for batch in data:
        with tracelens.step():
            with tracelens.phase("forward"):
                loss = model(batch).mean()
            with tracelens.phase("backward"):
                loss.backward()
            with tracelens.phase("optimizer"):
                optimizer.step()
    """
    done = ran(tmp_path, LOOP + program)

    assert done.marks() == STEP * 2


def test_a_model_that_the_program_instruments_has_each_range_once(tmp_path: Path) -> None:
    program = """
    import tracelens
    tracelens.instrument(model, optimizer, depth=0)
    """
    done = ran(tmp_path, LOOP + program + TRAIN)

    names = [path.split(" > ")[-1] for path in done.marks()]
    assert names.count("Model") == 4
    assert names.count("forward") == names.count("backward") == 2


def test_layers_that_are_put_in_later_and_called_alone_have_their_paths(tmp_path: Path) -> None:
    program = """
    for n, batch in enumerate(data):
        if n == 1:
            model.second = nn.Sequential(nn.Linear(4, 1))
        model(batch).sum().backward()
        model.first(batch)
        optimizer.step()
    """
    done = ran(tmp_path, LOOP + program)

    marks = done.marks()
    assert "step > forward > Model > second > second.0" in marks
    assert "step > forward > first" in marks


def test_lbfgs_calls_the_model_within_its_step(tmp_path: Path) -> None:
    program = """
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1)
    for batch in data:
        def closure():
            optimizer.zero_grad()
            loss = model(batch).mean()
            loss.backward()
            return loss
        optimizer.step(closure)
    """
    done = ran(tmp_path, LOOP.replace("optimizer =", "# ") + program)

    within = [path for path in done.marks() if path.count(" > ") == 2]
    assert within == ["step > optimizer > forward", "step > optimizer > backward"] * 2


@pytest.mark.parametrize(
    "how", ["run = torch.compile(model, {})", "run = model; model.compile({})"]
)
def test_a_compiled_model_is_one_range_without_a_graph_break(tmp_path: Path, how: str) -> None:
    options = "backend='aot_eager', fullgraph=True"
    program = f"""
    import warnings
    warnings.filterwarnings("error", message=".*global hooks.*", append=True)
    {how.format(options)}
    for n, batch in enumerate(data):
        run(batch).mean().backward()
        optimizer.step()
        torch._dynamo.config.error_on_recompile = n > 0
    """
    done = ran(tmp_path, LOOP + program)

    assert done.status == 0, done.output
    marks = [path for path in done.marks() if "Compiled" not in path]
    inside = ["forward", "forward > Model", "backward", "backward > Model", "optimizer"]
    assert marks == ["step", *(f"step > {one}" for one in inside)] * 2


def test_models_can_be_scripted_traced_pickled_and_copied(tmp_path: Path) -> None:
    program = """
    import copy, pickle, warnings
    warnings.simplefilter("ignore")
    model(data[0])
    twins = copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.jit.script(model)
    traced = torch.jit.trace(model, data[0])
    assert "record_function" not in str(traced.graph)
    assert all(torch.equal(twin(data[0]), model(data[0])) for twin in (*twins, traced))
    assert not model._forward_hooks and not model._forward_pre_hooks
    """
    done = ran(tmp_path, LOOP + program + TRAIN)

    assert done.status == 0, done.output
    assert phases(done.marks()) == phases(NEXT_STEP * 2)


def test_schedulers_and_wrapped_optimizers_work_as_they_would(tmp_path: Path) -> None:
    program = """
    import warnings
    warnings.simplefilter("error")
    class Mine(torch.optim.Adam):
        def step(self, closure=None):
            return super().step(closure)
    optimizer = Mine(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for batch in data:
        model(batch).mean().backward()
        optimizer.step()
        scheduler.step()
    """
    done = ran(tmp_path, LOOP.replace("optimizer =", "# ") + program)

    assert done.status == 0, done.output
    assert phases(done.marks()) == ["step", "forward", "backward", "optimizer"] * 2


# Which processes take part


def test_each_rank_answers_and_the_launcher_does_not(tmp_path: Path) -> None:
    program = """
    import torch.distributed as dist
    dist.init_process_group("gloo")
    model = nn.parallel.DistributedDataParallel(model)
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = ran(tmp_path, LOOP + program + TRAIN, command=[sys.executable, *torchrun, "program.py"])

    assert done.status == 0, done.output
    assert [one.rank for one in done.outcomes] == [0, 1]
    assert [len(one.steps_ns) for one in done.outcomes] == [2, 2]
    assert [one.made[0].path for one in done.outcomes] == [
        "trace.rank0.json.gz",
        "trace.rank1.json.gz",
    ]
    for rank in range(2):
        assert done.marks(f"trace.rank{rank}.json.gz") == NEXT_STEP * 2


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_that_load_data_take_no_part(tmp_path: Path, method: str) -> None:
    program = f"""
    import torch
    from torch import nn

    class Data(torch.utils.data.Dataset):
        prepare = nn.Linear(4, 4)
        def __len__(self):
            return 8
        def __getitem__(self, n):
            return self.prepare(torch.ones(4)).detach()

    if __name__ == "__main__":
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loader = torch.utils.data.DataLoader(
            Data(), batch_size=2, num_workers=1, multiprocessing_context="{method}"
        )
        for batch in loader:
            model(batch).mean().backward()
            optimizer.step()
    """
    done = ran(tmp_path, program)

    assert done.status == 0, done.output
    assert len(done.outcome.steps_ns) == 2
    assert len(list((done.folder / "passes").glob("*.outcome.json"))) == 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_ranks_that_the_program_starts_itself_take_part(tmp_path: Path, method: str) -> None:
    body = textwrap.indent(textwrap.dedent(LOOP + TRAIN).split("nn\n", 1)[1], " " * 8)
    program = f"""
    import os
    import torch
    import torch.distributed as dist
    import torch.multiprocessing as mp
    from torch import nn

    def train(rank):
        os.environ |= dict(MASTER_ADDR="127.0.0.1", MASTER_PORT="29611")
        dist.init_process_group("gloo", rank=rank, world_size=2, init_method="file://{tmp_path}/store")
{body}

    if __name__ == "__main__":
        mp.start_processes(train, nprocs=2, start_method="{method}")
    """
    (tmp_path / "text").write_text(program)
    done = ran(tmp_path, program)

    assert [one.rank for one in done.outcomes] == [0, 1], done.output
    assert [len(one.steps_ns) for one in done.outcomes] == [2, 2]


def test_what_the_program_starts_runs_as_it_would(tmp_path: Path) -> None:
    program = """
    import subprocess, sys
    code = "import torch; print('child', torch.ones(1))"
    subprocess.run([sys.executable, "-c", code], check=True)
    """
    done = ran(tmp_path, LOOP + program + TRAIN)

    assert "child tensor([1.])" in done.output
    assert len(done.outcomes) == 1


# How it ends


@pytest.mark.parametrize("program", ["import torch; print(torch.ones(1))", LOOP])
def test_a_program_without_a_step_answers_nothing(tmp_path: Path, program: str) -> None:
    done = ran(tmp_path, program)

    assert done.status == 0
    assert done.outcomes == []


def test_the_whole_program_is_recorded_if_wanted(tmp_path: Path) -> None:
    program = """
    import torch
    with torch.profiler.record_function("by hand"):
        torch.ones(2) @ torch.ones(2)
    print("end")
    """
    done = ran(tmp_path, program, steps=None)

    assert "end" in done.output
    assert done.outcome.steps_ns == []
    assert done.marks() == ["by hand"]


def test_all_steps_are_in_the_recording_of_a_whole_program(tmp_path: Path) -> None:
    done = ran(tmp_path, LOOP + TRAIN, steps=None)

    assert "end of the program" in done.output
    assert phases(done.marks()).count("backward") == 20


def test_an_error_is_told_and_what_was_recorded_is_kept(tmp_path: Path) -> None:
    program = """
    for n, batch in enumerate(data):
        loss = model(batch).mean()
        loss.backward()
        optimizer.step()
        assert n < 3, "the loss is not a number"
    """
    done = ran(tmp_path, LOOP + program, steps=5)

    assert done.status == 1
    assert "AssertionError: the loss is not a number" in done.output
    failure = done.outcome.failure
    assert failure is not None
    assert (failure.kind, failure.at) == ("error", "step 4")
    assert "the loss is not a number" in failure.text
    assert len(done.outcome.steps_ns) == 3
    assert phases(done.marks()).count("backward") == 3


def test_an_error_before_the_first_step_is_of_the_build(tmp_path: Path) -> None:
    done = ran(tmp_path, LOOP + "    raise MemoryError('no memory is left')")

    failure = done.outcome.failure
    assert failure is not None
    assert (failure.kind, failure.at) == ("out of memory", "build")


def test_a_program_that_is_told_to_end_answers_first(tmp_path: Path) -> None:
    program = """
    import os, signal
    for n, batch in enumerate(data):
        model(batch).mean().backward()
        optimizer.step()
        if n == 2:
            os.kill(os.getpid(), signal.SIGTERM)
    """
    done = ran(tmp_path, LOOP + program, steps=9)

    assert done.status == -15
    assert done.outcome.failure is not None
    assert done.outcome.failure.kind == "stopped"
    assert len(done.outcome.steps_ns) == 2


def test_what_a_program_does_at_its_end_is_done_when_the_recording_ends_it(tmp_path: Path) -> None:
    program = """
    import atexit
    atexit.register(print, "goodbye")
    def train():
        for batch in data:
            model(batch).mean().backward()
            optimizer.step()
    try:
        train()
    except Exception:
        print("caught")
    finally:
        print("finally")
    """
    done = ran(tmp_path, LOOP + program)

    assert done.status == 0
    assert "finally" in done.output
    assert "goodbye" in done.output
    assert "caught" not in done.output


@pytest.mark.parametrize("stop", [True, False])
def test_a_recorder_that_fails_is_told_and_breaks_nothing_else(tmp_path: Path, stop: bool) -> None:
    """GIVEN a recorder that can write nothing when its steps are over."""
    done = ran(
        tmp_path,
        "import pathlib; pathlib.Path('run/trace.json.gz').mkdir()\n"
        + textwrap.dedent(LOOP + TRAIN),
        stop=stop,
    )

    assert done.status == 0, done.output
    assert ("end of the program" in done.output) is not stop
    assert done.outcome.failure is not None
    assert "IsADirectoryError" in done.outcome.failure.text


# What Python runs first


def test_the_sitecustomize_that_is_hidden_runs_first(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("print('hidden', __name__)\n")
    program = "import sys; print(sys.modules['sitecustomize'].__file__, sys.path)\n"
    done = ran(tmp_path, program, variables={"PYTHONPATH": str(site)})

    assert done.output.startswith("hidden sitecustomize")
    assert str(site / "sitecustomize.py") in done.output
    assert str(INJECTED) not in done.output


def test_the_program_cannot_import_what_is_injected_by_its_bare_name(tmp_path: Path) -> None:
    done = ran(tmp_path, "import hooks")

    assert "No module named 'hooks'" in done.output


def test_an_interpreter_without_tracelens_runs_the_program_and_says_so_beside_the_job(
    tmp_path: Path,
) -> None:
    """GIVEN a module of that name that has nothing of it."""
    (tmp_path / "tracelens.py").touch()
    (tmp_path / "job.json").write_text("{}")
    found = os.pathsep.join([str(INJECTED), str(tmp_path)])
    variables = {"PYTHONPATH": found, "TRACELENS_JOB": str(tmp_path / "job.json")}
    command = [sys.executable, "-c", "print('ran')"]
    done = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, check=True
    )

    assert (done.stdout, done.stderr) == ("ran\n", "")
    assert "ModuleNotFoundError" in (tmp_path / "job.trouble.txt").read_text()


def test_a_job_that_cannot_be_read_leaves_the_program_alone(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{")
    variables = {"PYTHONPATH": str(INJECTED), "TRACELENS_JOB": str(tmp_path / "job.json")}
    command = [sys.executable, "-c", "import torch; print(torch.ones(1))"]
    done = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, check=True
    )

    assert (done.stdout, done.stderr) == ("tensor([1.])\n", "")
    assert "DecodeError" in (tmp_path / "job.trouble.txt").read_text()


def test_programs_start_without_loading_anything_heavy(tmp_path: Path) -> None:
    heavy = "{'torch', 'numpy', 'polars', 'msgspec', 'click', 'tracelens.capture.job'}"
    done = ran(tmp_path, f"import sys; print(sorted({heavy} & set(sys.modules)))")

    assert done.output == "[]\n"
