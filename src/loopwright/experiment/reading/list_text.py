"""`list_lines`, which returns the table of ``loopwright runs`` as lines of text for a terminal or a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.cells import cell_len

from loopwright.errors import printable
from loopwright.experiment.reading.entry import Entry
from loopwright.experiment.reading.texts import UNKNOWN, changes_text, number_text, state_text, value_text, when_text
from loopwright.experiment.sweep.tables.cell_text import with_equal_decimals

_INDENT = "  "
_GAP = "   "
_BLOCK_INDENT = "      "
_CHANGES = "not as configured"
_LEAST_CHANGES = 24  # columns for changed settings, if a table has them
_MAX_LINES = 3  # lines of a run in a table
_FOLDED_BELOW = 80  # in a narrower terminal, each run has several lines
# Columns that are left out first if the table is too wide. Origins and names are then shown among the changed settings.
_DISPENSABLE = ("best", "from", "name")
_MOVED = ("name", "from")
_DISPENSABLE_IN_BLOCKS = ("best", "when", "steps")  # columns that are moved out of the first line of a block


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: its name, its heading, its texts, the width of the widest text, and whether texts end at the right."""

    name: str
    heading: str
    cells: Sequence[str]
    width: int
    is_right: bool = False


def _column(name: str, heading: str, cells: Sequence[str], *, is_right: bool = False) -> _Column:
    heading, *texts = (printable(text, keeps_newlines=False) for text in (heading, *cells))
    return _Column(name, heading, texts, max(map(cell_len, (heading, *texts))), is_right)


def list_lines(
    entries: Sequence[Entry],
    *,
    now: datetime,
    width: int | None,
    more: Mapping[str, Callable[[Entry], Any]],
    changed: str = _CHANGES,
) -> list[str]:
    """Return a heading and the lines of all runs.

    Values are never cut. If the table is too wide, the best values are left out, then origins and names are shown among
    the changed settings, then each run becomes a block of lines. A column without a value is left out.

    Args:
        entries: runs in the order of the table.
        now: current time, with which times are compared.
        width: width of the terminal in characters; None: no limit.
        more: functions that return the values of further columns, by heading.
        changed: heading of the changed settings.
    """
    columns = _columns(entries, now, more)
    changes = [changes_text(entry) for entry in entries]
    if width is None:
        return _grid(columns, changes, None, changed)
    if width < _FOLDED_BELOW:
        return _blocks(columns, changes, width)
    found: list[str] | None = None
    left_out: list[str] = []
    for name in (None, *_DISPENSABLE):
        left_out += [] if name is None else [name]
        shown = [column for column in columns if column.name not in left_out]
        moved = [column for column in columns if column.name in left_out and column.name in _MOVED]
        cells = [[*_units(moved, place), *texts] for place, texts in enumerate(changes)]
        left = width - _width_of(shown) - len(_GAP)
        if not any(cells) and left >= -len(_GAP):
            return _grid(shown, cells, left, changed)
        is_narrow = left < max(len(changed), min(_LEAST_CHANGES, _natural(cells)))
        if is_narrow or max(len(_filled(texts, left)) for texts in cells) > _MAX_LINES:
            continue
        found = _grid(shown, cells, left, changed)
        if all(cell_len(text) <= left for texts in cells for text in texts):
            return found
    return _blocks(columns, changes, width) if found is None else found


def _units(columns: Sequence[_Column], place: int) -> list[str]:
    """Return the heading and the value of each column at one run, such as ``from 6b7ccb, step 2,000``."""
    return [f"{column.heading} {column.cells[place]}" for column in columns if column.cells[place] != UNKNOWN]


def _columns(entries: Sequence[Entry], now: datetime, more: Mapping[str, Callable[[Entry], Any]]) -> list[_Column]:
    """Return the columns that have a value, except the changed settings."""
    objectives = dict.fromkeys(entry.objective_name for entry in entries)
    has_one = len(objectives) == 1
    columns = [
        _column("id", "id", [entry.id for entry in entries]),
        _column("name", "name", [entry.name for entry in entries]),
        _column("when", "when", [when_text(entry.started, now) for entry in entries]),
        _column("state", "state", [state_text(entry) for entry in entries]),
        _column("steps", "steps", [_steps(entry) for entry in entries], is_right=True),
        _column(
            "objective",
            next(iter(objectives)) if has_one else "objective",
            with_equal_decimals([_objective(entry, has_name=not has_one) for entry in entries]),
        ),
        _column("best", "best", with_equal_decimals([number_text(entry.best) for entry in entries])),
        *(_column("more", key, [value_text(find(entry)) for entry in entries]) for key, find in more.items()),
        _column("from", "from", [entry.origin or UNKNOWN for entry in entries]),
    ]
    if len({entry.name for entry in entries}) == 1:
        columns = [column for column in columns if column.name != "name"]
    return [each for each in columns if each.name in ("id", "state", "more") or set(each.cells) != {UNKNOWN}]


def _steps(entry: Entry) -> str:
    return f"{entry.global_step:,}" if entry.global_step or entry.num_steps is not None else UNKNOWN


def _objective(entry: Entry, *, has_name: bool) -> str:
    text = number_text(entry.objective)
    return f"{text} {entry.objective_name}" if has_name and entry.objective is not None else text


def _width_of(columns: Sequence[_Column]) -> int:
    return len(_INDENT) + sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)


def _natural(changes: Sequence[Sequence[str]]) -> int:
    """Return the width of the changed settings on one line for each run."""
    return max((cell_len(" ".join(texts)) for texts in changes), default=0)


def _grid(columns: Sequence[_Column], changes: Sequence[Sequence[str]], width: int | None, changed: str) -> list[str]:
    """Return the table. ``width`` is the width of the changed settings, which can have several lines.

    If a changed setting of a run is wider, the changed settings of this run follow on lines that begin at the left.
    """
    first = [column for column in columns if column.name != "from"]
    last = [column for column in columns if column.name == "from"]
    is_wide = [width is not None and any(cell_len(text) > width for text in texts) for texts in changes]
    lines_of = [[""] if is_wide[place] else _filled(texts, width) or [UNKNOWN] for place, texts in enumerate(changes)]
    most = max((cell_len(text) for texts in lines_of for text in texts), default=0)
    most = max(most, len(changed)) if any(changes) else 0
    own_width = _width_of(columns) + len(_GAP) + most

    def line(cells: Sequence[str], text: str, after: Sequence[str]) -> str:
        parts = [_padded(column, cell) for column, cell in zip(first, cells, strict=True)]
        parts += [text + " " * (most - cell_len(text))] if most else []
        return f"{_INDENT}{_GAP.join([*parts, *after])}".rstrip()

    lines = [line([column.heading for column in first], changed, [column.heading for column in last])]
    for place, texts in enumerate(lines_of):
        cells = [column.cells[place] for column in first]
        lines.append(line(cells, texts[0], [column.cells[place] for column in last]))
        lines += [line([""] * len(first), text, []) for text in texts[1:]]
        if is_wide[place]:
            lines += [f"{_BLOCK_INDENT}{text}" for text in _filled(changes[place], own_width - len(_BLOCK_INDENT))]
    return lines


def _padded(column: _Column, cell: str) -> str:
    spaces = " " * (column.width - cell_len(cell))
    return f"{spaces}{cell}" if column.is_right else f"{cell}{spaces}"


def _blocks(columns: Sequence[_Column], changes: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a line with the numbers of each run, and indented lines with its other values."""
    first = [column for column in columns if column.name not in (*_MOVED, "more")]
    moved: list[_Column] = []
    for name in _DISPENSABLE_IN_BLOCKS:
        if _width_of(first) > width:
            moved += [column for column in first if column.name == name]
            first = [column for column in first if column.name != name]
    others = [*moved, *(column for column in columns if column.name in (*_MOVED, "more"))]
    inner = max(1, width - len(_BLOCK_INDENT))
    lines = [f"{_INDENT}{_GAP.join(_padded(column, column.heading) for column in first)}".rstrip()]
    for place, texts in enumerate(changes):
        lines.append(f"{_INDENT}{_GAP.join(_padded(column, column.cells[place]) for column in first)}".rstrip())
        below = [*_filled(_units(others, place), inner, _GAP), *_filled(texts, inner)]
        lines += [f"{_BLOCK_INDENT}{text}" for text in below]
    return lines


def _filled(texts: Sequence[str], width: int | None, gap: str = " ") -> list[str]:
    """Join texts to lines of at most ``width`` characters. A text is never broken."""
    lines: list[str] = []
    for text in texts:
        if lines and (width is None or cell_len(lines[-1]) + len(gap) + cell_len(text) <= width):
            lines[-1] += f"{gap}{text}"
        else:
            lines.append(text)
    return lines
