"""`lineage_lines` and `lineage_rows`, which return what ``loopwright lineage`` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

from rich.cells import cell_len

from loopwright.errors import on_one_line
from loopwright.experiment.reading.texts import UNKNOWN, number_text
from loopwright.records import run_id
from loopwright.records.known_runs import is_job_name
from loopwright.records.lineage import Relative
from loopwright.records.origins import Origin

FIELDS = (
    "relation",
    "id",
    "above",
    "from_steps",
    "also_from",
    "checkpoint",
    "state",
    "global_step",
    "num_steps",
    "objective_name",
    "objective",
    "best",
    "best_step",
    "resumed_from",
    "directory",
    "note",
)
_GAP = "   "
_MAX_STEPS = 4  # steps in a list
_BRANCHES = MappingProxyType({"last": "└ ", "other": "├ ", "line": "│ ", "none": "  "})
_ASCII_BRANCHES = MappingProxyType({"last": "` ", "other": "+ ", "line": "| ", "none": "  "})


@dataclass(frozen=True, slots=True)
class _Line:
    """A run or several jobs of a sweep: the cells of its row, and texts on lines of their own."""

    branch: str
    indent: str
    cells: tuple[str, ...]
    path: str
    notes: tuple[str, ...]


def lineage_lines(tree: Sequence[Relative], *, width: int, is_ascii: bool = False) -> list[str]:
    """Return the tree with one line for each run: its id, where it starts, its state, its objective and its path.

    Jobs of one sweep that start from the same run, and from which no run starts, are one line.

    Args:
        tree: runs in the order of the tree; see `loopwright.records.lineage.read_lineage`.
        width: width of the terminal in characters. If the table is wider, each path has its own line.
        is_ascii: whether the branches are drawn with ASCII characters.
    """
    branches = _ASCII_BRANCHES if is_ascii else _BRANCHES
    shown = list(_lines(tree, branches))
    heads = [f"{each.branch}{each.cells[0]}" for each in shown]
    columns = [heads, *([each.cells[place] for each in shown] for place in range(1, len(shown[0].cells)))]
    columns = [column for column in columns if any(column)]
    sizes = [max(map(cell_len, column)) for column in columns]
    is_wide = sum(sizes) + len(_GAP) * len(sizes) + max(cell_len(each.path) for each in shown) > width
    lines: list[str] = []
    for place, each in enumerate(shown):
        cells = [
            f"{column[place]}{' ' * (size - cell_len(column[place]))}"
            for column, size in zip(columns, sizes, strict=True)
        ]
        lines.append(_GAP.join([*cells, *([] if is_wide else [each.path])]).rstrip())
        lines += [f"{each.indent}{text}" for text in (*([each.path] if is_wide else []), *each.notes)]
    return lines


def lineage_rows(tree: Sequence[Relative]) -> list[dict[str, Any]]:
    """Return a row for each run of the tree, with the fields in `FIELDS`. ``above`` is the number of a row, from 0."""
    return [_row(each) for each in tree]


def _row(each: Relative) -> dict[str, Any]:
    run = each.run
    return {
        "relation": each.relation,
        "id": _id(each),
        "above": each.above,
        "from_steps": [origin.step for origin in each.origins],
        "also_from": [origin.text for origin in each.others],
        "checkpoint": each.checkpoint if each.origins else None,
        "state": None if run is None else run.state,
        "global_step": None if run is None else run.global_step,
        "num_steps": None if run is None else run.num_steps,
        "objective_name": None if run is None else run.objective_name,
        "objective": None if run is None else run.objective,
        "best": None if run is None or run.best is None else run.best.value,
        "best_step": None if run is None or run.best is None else run.best.step,
        "resumed_from": list(each.resumed_from),
        "directory": str(each.directory),
        "note": each.note,
    }


def _lines(tree: Sequence[Relative], branches: MappingProxyType[str, str]) -> Iterator[_Line]:
    """Yield the lines of a tree in their order."""
    below: dict[int | None, list[int]] = {}
    for place, each in enumerate(tree):
        below.setdefault(each.above, []).append(place)

    def is_folded(place: int) -> bool:
        each = tree[place]
        is_job = each.run is not None and each.run.is_job and is_job_name(each.directory.name)
        return each.relation == "descendant" and is_job and place not in below

    def folder_of(place: int) -> str | int:
        return str(tree[place].directory.parent) if is_folded(place) else place

    def groups_below(place: int | None) -> list[list[int]]:
        return [list(places) for _, places in groupby(below.get(place, []), folder_of)]

    waiting: list[tuple[list[int], str, bool | None]] = [(group, "", None) for group in reversed(groups_below(None))]
    while waiting:
        group, indent, is_last = waiting.pop()
        branch = "" if is_last is None else indent + branches["last" if is_last else "other"]
        inner = "" if is_last is None else indent + branches["none" if is_last else "line"]
        groups = groups_below(group[0])
        own_indent = inner + branches["line" if groups else "none"]
        yield _line([tree[place] for place in group], branch, own_indent)
        last = len(groups) - 1
        waiting += [(each, inner, place == last) for place, each in reversed(list(enumerate(groups)))]


def _line(group: Sequence[Relative], branch: str, indent: str) -> _Line:
    first = group[0]
    if len(group) == 1:
        cells = (
            _id(first) + (" (this run)" if first.relation == "run" else ""),
            _start_text(first),
            *_state_texts(first),
        )
        return _Line(branch, indent, cells, on_one_line(str(first.directory)), tuple(_notes(first)))
    ids = [_id(each) for each in group[:1]]
    states = sorted({each.run.state for each in group if each.run is not None})
    starts = {_start_text(each) for each in group}
    cells = (
        f"{ids[0].rpartition('/')[0]}/{_numbers_text([each.directory.name for each in group])}",
        starts.pop() if len(starts) == 1 else "from several steps",
        f"{len(group)} jobs: {', '.join(states)}",
        "",
        "",
    )
    return _Line(branch, indent, cells, on_one_line(str(first.directory.parent)), ())


def _numbers_text(names: Sequence[str]) -> str:
    """Return the numbers of jobs, such as ``0-5`` or ``0, 2, 5``."""
    numbers = [int(name) for name in names]
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))) and len(numbers) > 1:
        return f"{numbers[0]}-{numbers[-1]}"
    shown = names if len(names) <= _MAX_STEPS else [*names[:2], "...", names[-1]]
    return ", ".join(shown)


def _id(each: Relative) -> str:
    return on_one_line(run_id(each.directory), 100)


def _start_text(each: Relative) -> str:
    """Return the steps of the checkpoints from which a run starts, such as ``from step 2,000 (removed)``."""
    if not each.origins:
        return ""
    state = f" ({each.checkpoint})" if each.checkpoint in ("changed", "removed") else ""
    return f"from {_steps_text([origin.step for origin in each.origins])}{state}"


def _steps_text(steps: Sequence[int | None]) -> str:
    known = [f"{step:,}" for step in steps if step is not None]
    if not known:
        return "a checkpoint"
    shown = known if len(known) <= _MAX_STEPS else [*known[:2], "…", known[-1]]
    return f"step{'s' if len(known) > 1 else ''} {', '.join(shown)}"


def _state_texts(each: Relative) -> tuple[str, str, str]:
    """Return the state, the number of steps and the objective of a run."""
    run = each.run
    if run is None:
        return (each.note or "not found", "", "")
    steps = f"{run.global_step:,} step{'s' if run.global_step != 1 else ''}"
    objective = "" if run.objective is None else f"{run.objective_name} {number_text(run.objective)}"
    return run.state, steps, on_one_line(objective)


def _notes(each: Relative) -> Iterator[str]:
    """Yield the resumes of a run, the other checkpoints from which it starts, and why the tree does not go further."""
    if each.resumed_from:
        yield f"resumed from {_steps_text(each.resumed_from)}"
    if each.others:
        yield f"also from {_origins_text(each.others)}"
    if each.note is not None and each.run is not None:
        yield on_one_line(each.note)


def _origins_text(origins: Sequence[Origin]) -> str:
    shown = [origin.text or UNKNOWN for origin in origins[:_MAX_STEPS]]
    more = [f"{len(origins) - _MAX_STEPS:,} more"] if len(origins) > _MAX_STEPS else []
    return "; ".join([*shown, *more])
