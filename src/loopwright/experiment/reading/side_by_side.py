"""`side_by_side`, which returns sections of rows with one column for each run or sweep as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

from loopwright.errors import printable
from loopwright.terminal_text import wrapped

_INDENT = "  "
_GAP = "   "
_MAX_CELL = 40  # a wider value would make a whole column wide


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its name, one cell for each column, and whether the cells are numbers with aligned decimal points."""

    name: str
    cells: tuple[str, ...]
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Rows below a title. The title can be empty. The notes are lines below the rows."""

    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()


def side_by_side(headings: Sequence[str], sections: Sequence[Section], width: int) -> list[str]:
    """Return the lines of all sections. Sections without a row and a note are left out.

    No value is cut. A row with a value of more than 40 characters becomes a block: a line with the name of the row, and
    below it one line for each column with its heading and its value. If the table is still too wide, further rows
    become blocks, or have their name on a line of its own.

    Args:
        headings: headings of the columns.
        sections: rows below titles.
        width: width of the terminal in characters.
    """
    head = Row("", tuple(map(_plain, headings)))
    shown = [replace(each, rows=_aligned(each.rows, len(headings))) for each in sections if each.rows or each.notes]
    narrow, widths = _fitting(head, [row for each in shown for row in each.rows], width)
    lines = [_line(head, widths)] if narrow else []
    for section in shown:
        lines += ["", section.title] if section.title else []
        for row in section.rows:
            lines += _row_lines(row, head, widths, is_narrow=id(row) in narrow) if narrow else _block(row, head.cells)
        lines += [line for note in section.notes for line in wrapped(f"{_INDENT}{_plain(note)}", width).split("\n")]
    return lines


def _aligned(rows: Sequence[Row], num_columns: int) -> list[Row]:
    """Return rows with printable texts, in which the decimal points of each column are below one another."""
    rows = [replace(row, name=_plain(row.name), cells=tuple(map(_plain, row.cells))) for row in rows]
    most = [
        max((_num_before_point(row.cells[column]) for row in rows if row.is_number), default=0)
        for column in range(num_columns)
    ]
    return [replace(row, cells=tuple(map(_shifted, row.cells, most))) if row.is_number else row for row in rows]


def _plain(text: str) -> str:
    return printable(text, keeps_newlines=False)


def _shifted(cell: str, most: int) -> str:
    num = _num_before_point(cell)
    return " " * (most - num) + cell if num else cell


def _num_before_point(cell: str) -> int:
    """Return the number of characters before the decimal point of a number; 0 for a word such as ``NaN``."""
    return len(cell.partition(".")[0]) if any(character.isdigit() for character in cell) else 0


def _fitting(head: Row, rows: Sequence[Row], width: int) -> tuple[set[int], list[int]]:
    """Return the identities of the rows that fit beside one another, and the widths of the columns.

    No row fits if the headings are too wide.
    """
    sizes = _sizes(head)
    if _total(sizes) > width:
        return set(), sizes
    fitting: set[int] = set()
    for row in sorted(rows, key=lambda each: (max(map(cell_len, each.cells)) > _MAX_CELL, max(_sizes(each)))):
        larger = list(map(max, sizes, _sizes(row)))
        if _total(larger) > width or max(map(cell_len, row.cells)) > _MAX_CELL:
            break
        sizes = larger
        fitting.add(id(row))
    return fitting, sizes


def _sizes(row: Row) -> list[int]:
    return [cell_len(text) for text in (row.name, *row.cells)]


def _total(sizes: Sequence[int]) -> int:
    return len(_INDENT) + sum(sizes) + len(_GAP) * (len(sizes) - 1)


def _line(row: Row, widths: Sequence[int]) -> str:
    cells = [text + " " * (size - cell_len(text)) for text, size in zip((row.name, *row.cells), widths, strict=True)]
    return f"{_INDENT}{_GAP.join(cells)}".rstrip()


def _row_lines(row: Row, head: Row, widths: Sequence[int], *, is_narrow: bool) -> list[str]:
    """Return the lines of a row. If only the name is too wide for its column, the values are below the name."""
    if is_narrow:
        return [_line(row, widths)]
    if all(size <= most for size, most in zip(_sizes(row)[1:], widths[1:], strict=True)):
        return [f"{_INDENT}{row.name}", _line(replace(row, name=""), widths)]
    return _block(row, head.cells)


def _block(row: Row, headings: Sequence[str]) -> list[str]:
    """Return a line with the name of a row, and a line with the heading and the value of each column."""
    most = max(map(cell_len, headings), default=0)
    below = [
        f"{_INDENT * 2}{heading}{' ' * (most - cell_len(heading))}{_GAP}{cell.strip()}"
        for heading, cell in zip(headings, row.cells, strict=True)
    ]
    return [f"{_INDENT}{row.name}", *below]
