"""What a block of memory is for, by rule: of its call stack, and of when it came and went.

A snapshot does not say what is a parameter and what an activation. The user's rules come first,
then rules on call stacks, then the phases in which a block was allocated and freed. What no rule
fits has no category.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.errors import UsageError
from tracelens.links.call_stacks import texts
from tracelens.links.memory_phases import INFERRED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracelens.links.memory import Memory

PRE_EXISTING: Final = "pre-existing (no alloc stack)"
THROUGHOUT: Final = "parameters/optimizer state (inferred)"
_BY_STACK: Final = {
    "parameters": (
        r"torch/nn/modules/module\.py:\d+ (?:_apply|convert|cuda|to|<lambda>)$"
        r"|torch/nn/modules/\w+\.py:\d+ (?:__init__|reset_parameters)$"
        r"|torch/nn/(?:parameter|init)\.py:"
    ),
    "communication": r"torch/distributed/|torch/nn/parallel/|\bc10d::|\bProcessGroup",
    "autotuning": r"torch/_inductor/(?:select_algorithm|autotune)|triton/runtime/autotuner",
}


def categorised(memory: Memory, lives: pl.DataFrame) -> pl.DataFrame:
    """Return these lives of a recording with `category` (null: no rule fits).

    Raises:
        UsageError: a user's regular expression does not compile.
    """
    by_stack = _by_stack(memory, lives)
    told = lives.select("stack_id").join(by_stack, on="stack_id", how="left", maintain_order="left")
    says = told.join(
        memory.stacks.select("stack_id", "says"), on="stack_id", how="left", maintain_order="left"
    )["says"]
    # Nothing shows that a block stays where there is no history.
    with_history = memory.devices.filter(pl.col("events") > 1)["device"].to_list()
    older = pl.col("pre_existing")
    stays = pl.col("completed_index").is_null() & pl.col("device").is_in(with_history)
    unknown = older & pl.col("stack_id").is_null()
    first = (
        pl.when(unknown & stays).then(pl.lit(THROUGHOUT)).when(unknown).then(pl.lit(PRE_EXISTING))
    )
    last = pl.when(older & stays).then(pl.lit(THROUGHOUT))
    phase = pl.coalesce(pl.col("phase").cast(pl.String), says)
    return lives.with_columns(category=pl.coalesce(told["category"], first, _by_life(phase), last))


def _by_life(phase: pl.Expr) -> pl.Expr:
    """Return the category that follows from the phases in which a block came and went."""
    end = pl.col("end_phase").cast(pl.String)
    backward = ["backward", INFERRED]
    same_step = pl.col("step").eq_missing(pl.col("end_step"))
    freed_here = same_step & end.is_not_null()
    return (
        pl.when((phase == "optimizer") & freed_here & (end == "optimizer"))
        .then(pl.lit("optimizer temporaries"))
        .when(phase == "optimizer")
        .then(pl.lit("optimizer state"))
        .when(phase.is_in(backward) & freed_here & end.is_in(backward))
        .then(pl.lit("backward temporaries"))
        .when(phase.is_in(backward))
        .then(pl.lit("gradients"))
        .when((phase == "forward") & freed_here & (end == "forward"))
        .then(pl.lit("forward temporaries"))
        .when((phase == "forward") | end.is_in(backward))
        .then(pl.lit("activations"))
    )


def _by_stack(memory: Memory, lives: pl.DataFrame) -> pl.DataFrame:
    """Return stack_id and category of the stacks that a rule fits; the first rule wins."""
    asked = _compiled(memory.ask.categories)
    built_in = {n: r for n, r in _compiled(_BY_STACK).items() if n not in asked}
    rows = texts(memory.trace, lives["stack_id"].drop_nulls().unique()).join(
        memory.stacks.select("stack_id", "library_frames"), on="stack_id", how="left"
    )
    found = []
    for stack_id, frames, inside in rows.iter_rows():
        # What the user called says what a block is for; what called the user does not.
        fits = (*_fitting(asked, frames), *_fitting(built_in, frames[:inside]))
        if fits:
            found.append((stack_id, fits[0]))
    return pl.DataFrame(found, schema={"stack_id": pl.UInt32, "category": pl.String}, orient="row")


def _fitting(rules: Mapping[str, re.Pattern[str]], frames: Sequence[str]) -> list[str]:
    text = "\n".join(frames).replace("\\", "/")
    return [name for name, rule in rules.items() if rule.search(text)]


def _compiled(asked: Mapping[str, str]) -> dict[str, re.Pattern[str]]:
    rules = {}
    for name, rule in asked.items():
        try:
            rules[name] = re.compile(rule, re.MULTILINE)
        except re.error as error:
            raise UsageError(
                f"--category {name}={rule}: this is no regular expression ({error})."
            ) from error
    return rules
