"""Names that try to be more than text, in every kind of recording, on every page of the explorer.

A name may be anything: markup, a formula, a template, what a terminal obeys, a property of every
object, or very long. All of them are to be seen, and none is to do anything.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final

import pytest

pytest.importorskip("dash", reason="no dash: the explorer is not installed")

from tests.build import Nsys
from tests.dashboards.visits import addresses, is_shown, visit
from tests.dashboards.waits import copied, leave_dialog, quiet
from tests.kineto import Profile
from tests.snapshots import MIB, Snapshot, dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.dashboards.conftest import Explorer

NAMES: Final = (
    "<script>window.__pwned=1</script>",
    "<img src=x onerror=window.__pwned=1>",
    "</script></style><svg onload=window.__pwned=1>",
    "<b>bold</b><br><a href='javascript:window.__pwned=1'>click</a>",
    "javascript:window.__pwned=1",
    "{{constructor.constructor('window.__pwned=1')()}}${window.__pwned=1}",
    "\u202egnp.exe\u2066\u200f \x1b[31mred\x1b[0m\x07",
    "=cmd()",
    "=HYPERLINK('http://evil.example','click')",
    "+1+cmd()",
    "@SUM(1)",
    "-2+3+cmd()",
    "__proto__",
    "constructor",
    "long<b>" * 1_430,
)
FORMULAS: Final = ("=", "+", "@", "\t", "\r")
FOLDER: Final = "<img src=x onerror=window.__pwned=1>"
FILE: Final = "=cmd()<script>window.__pwned=1<b>\u202e"
ADDED: Final = (
    "main img, main script, main b, main iframe, main object, main form, [onerror], [onload], "
    "[href^=javascript], [src=x], tspan[style*=bold]"
)
"""What no page of ours makes, and names would make if they were markup."""


def nsys(folder: Path) -> Path:
    """Write an export of Nsight Systems in which all that has a name has such a one."""
    trace = Nsys()
    main = trace.thread(NAMES[0], pid=100, tid=100)
    side = trace.thread(NAMES[1], pid=100, tid=101)
    trace.device(0, NAMES[3])
    trace.diagnostic(NAMES[1])
    main.push("step 0", 0, 1_000_000)
    for place, name in enumerate(NAMES):
        at = place * 40_000
        main.push(name, at, at + 39_000, domain=name)
        main.push("forward", at + 10, at + 20_000)
        main.kernel(name, at=at + 100, run=(at + 200, at + 15_000), stream=7 + place % 2)
        side.kernel(f"{name} again", at=at + 100, run=(at + 17_000, at + 18_000))
        side.call(name, at + 300, at + 400)
    return trace.write(folder / f"{FILE}.sqlite")


def kineto(folder: Path) -> Path:
    """Write a trace of torch.profiler in which all that has a name has such a one."""
    trace = Profile("2026-02")
    main = trace.thread(NAMES[0], pid=100)
    main.annotation("ProfilerStep#0", 0, 1_000_000)
    for place, name in enumerate(NAMES):
        at = place * 40_000
        main.annotation(name, at, at + 39_000)
        main.op(name, at + 100, at + 30_000, dims=[[4, 8]], types=[name], inputs=[name])
        main.python(f"nn.Module: {name}", at + 50, at + 35_000, module=place)
        main.python(f"{name}.py(1): {name}", at + 60, at + 34_000)
        main.kernel(name, at=at + 1_000, run=(at + 2_000, at + 15_000))
        main.memory(at + 500, 512, allocated=512 * (place + 1), reserved=MIB)
    return trace.write(folder / f"{FILE}.json")


def snapshot(folder: Path) -> Path:
    """Write a memory snapshot in which all that has a name has such a one."""
    made = Snapshot()
    gpu = made.device(0)
    for place, name in enumerate(NAMES):
        with made.range(name), made.range("forward"):
            kept = gpu.alloc((place + 1) * MIB, stack=(f"{place}:1 {name}",), user_metadata=name)
            gpu.free(gpu.alloc(MIB, stack=(f"{place}:2 {name}",), compile_context=name))
        if place % 2:
            gpu.free(kept)
    content = made.content()
    for frame in _frames(content):
        frame["filename"] = NAMES[int(frame["filename"])] if frame["filename"].isdigit() else ""
    return dump(content, folder / f"{FILE}.pickle")


def _frames(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give each frame once: equal ones are one object."""
    entries = [entry for trace in content["device_traces"] for entry in trace]
    blocks = [block for segment in content["segments"] for block in segment["blocks"]]
    found = {id(f): f for holder in (*entries, *blocks) for f in holder.get("frames", ())}
    yield from found.values()


@pytest.fixture(params=[nsys, kineto, snapshot], ids=lambda make: make.__name__)
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / FOLDER
    folder.mkdir()
    make: Callable[[Path], Path] = request.param
    return make(folder)


@pytest.fixture
def page(page: Any) -> Any:
    """Give the page, on which a dialog is a complaint, too."""
    page.on("dialog", lambda dialog: (page.complaints.append(dialog.message), dialog.dismiss()))
    return page


def inert(page: Any) -> None:
    """Find nothing that a name has done, or has become, anywhere on the page."""
    assert page.evaluate("window.__pwned") is None
    added = page.eval_on_selector_all(ADDED, "all => all.map(one => one.outerHTML.slice(0, 300))")
    assert added == []
    said = page.evaluate("document.documentElement.innerText + document.title")
    assert not {"\u202e", "\u2066", "\u200f", "\x1b", "\x07"} & set(said)
    assert page.evaluate("Object.keys(Object.prototype)") == []


def unfold(page: Any) -> None:
    page.eval_on_selector_all("#page details", "all => all.forEach(one => { one.open = true; })")


def overview(page: Any) -> str:
    unfold(page)
    bars = page.locator(".bars .point")
    for place in range(min(3, bars.count())):
        bars.nth(place).hover(force=True)
    return "#page"


def timeline(page: Any) -> str:
    page.locator(".tl-canvas").hover()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".tl-details")
    page.keyboard.press("r")
    page.wait_for_selector(".tl-statistics")
    page.keyboard.press("/")
    page.keyboard.type("<")
    page.wait_for_selector("#timeline[aria-busy=false]")
    return "#page"


def kernels(page: Any) -> str:
    page.click("#kernel-names .ag-row[row-id] .kernel-name")
    page.wait_for_selector("#kernel-detail *")
    return "#kernel-names"


def tree(page: Any) -> str:
    unfold(page)
    page.click("#tree td button >> nth=1")
    page.wait_for_selector("#tree-detail *")
    return "#tree"


def memory(page: Any) -> str:
    page.click("#memory-course")
    page.wait_for_selector("#memory-held h3:has-text('After event')")
    page.hover("#memory-lifetimes", force=True)
    unfold(page)
    return "#page"


def roofline(page: Any) -> str:
    unfold(page)
    return "#page"


def compare(page: Any) -> str:
    unfold(page)
    page.click("#compare-baseline")
    page.wait_for_selector("[role=option]:visible")
    page.keyboard.press("Escape")
    return "#page"


VISITS: Final = {
    "overview": overview,
    "timeline": timeline,
    "kernels": kernels,
    "tree": tree,
    "memory": memory,
    "roofline": roofline,
    "compare": compare,
}


def test_names_do_nothing_on_any_page_nor_in_a_spreadsheet(
    explorer: Explorer, page: Any, recording: Path
) -> None:
    folder = recording.parents[1]
    seen = ""
    cells: list[str] = []
    for address in addresses(explorer([folder]), [folder]):
        name = visit(page, address)
        if is_shown(page, name):
            part = VISITS[name](page)
            quiet(page)
            seen += page.inner_text(part)
            cells += cells_copied(page)
        inert(page)

    assert FOLDER in seen
    assert any(name in seen for name in NAMES[:4])
    assert [cell for cell in cells if is_formula(cell)] == []
    assert any(cell.startswith("'=cmd") for cell in cells)


def test_names_do_nothing_in_the_shell(explorer: Explorer, page: Any, recording: Path) -> None:
    bad = recording.with_name(f"bad {recording.name}")
    damaged(recording, bad)
    found = addresses(explorer([recording.parents[1]]), [recording.parents[1]])
    overviews = [address for address in found if address.endswith("/overview")]
    for address in (*overviews, overviews[0]):
        visit(page, address)

    page.click("#problems-open")
    page.wait_for_selector("[role=dialog] li:has-text('bad =cmd()<script>')")
    inert(page)
    leave_dialog(page)
    page.click("#run")
    page.wait_for_selector("[role=option]:has-text('(cannot be read)')")
    inert(page)


def damaged(recording: Path, bad: Path) -> None:
    """Write a recording that no reader can mend: half of it, or a little where it is text.

    Half of a trace in JSON is still read, as far as it goes.
    """
    content = recording.read_bytes()
    is_text = recording.suffix == ".json"
    bad.write_bytes(content[:16] + bytes(5_000) if is_text else content[: len(content) // 2])


def cells_copied(page: Any) -> Iterator[str]:
    """Give each cell that the buttons for CSV on the page copy."""
    for button in page.get_by_role("button", name="Copy as CSV").all():
        if button.is_visible():
            for row in csv.reader(io.StringIO(copied(page, button))):
                yield from row


def is_formula(cell: str) -> bool:
    """Tell whether a spreadsheet would compute a cell; a negative number is none."""
    return cell.startswith(FORMULAS) or (cell.startswith("-") and not _is_number(cell))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
