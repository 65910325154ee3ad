"""`data_table`, which makes a table that sorts and filters, and small parts that several pages use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loopwright.records.report.builder import Element, element

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: its content, and the value by which the table is sorted."""

    content: Any
    value: float | str | None = None
    is_number: bool = False


def data_table(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    best: int | None = None,
    can_hide: bool = False,
) -> Element:
    """Return a table. With scripts, a click on a header sorts it, and a word filters its rows.

    Args:
        name: value of the attribute ``id``.
        columns: headers.
        rows: cells of each row.
        best: index of the row that is marked as the best.
        can_hide: whether each column can be hidden.
    """
    numeric = [bool(rows) and all(row[index].is_number for row in rows) for index in range(len(columns))]
    head = [
        element("th", element("button", column, type="button"), scope="col", class_="number" if is_number else None)
        for column, is_number in zip(columns, numeric, strict=True)
    ]
    body = [
        element("tr", [_cell(cell) for cell in row], class_="best" if index == best else None)
        for index, row in enumerate(rows)
    ]
    boxes = [
        element(
            "label",
            element("input", type="checkbox", checked=True, data_column=index, data_table=name),
            f" {column}",
        )
        for index, column in enumerate(columns)
    ]
    filters = element("input", type="search", placeholder="Filter rows", aria_label="Filter rows", data_filters=name)
    controls = element("div", filters, boxes if can_hide else None, class_="controls")
    table = element(
        "table", element("thead", element("tr", head)), element("tbody", body), class_="data sortable", id=name
    )
    return element(
        "div",
        controls if len(rows) > 5 or can_hide else None,
        element("div", table, class_="scroll", tabindex=0, role="region", aria_label=f"Table {name}"),
        class_="block",
    )


def command(label: str, text: str) -> Element:
    """Return a command with a button that copies it."""
    copy = element("button", "Copy", type="button", class_="script", data_copy=True, aria_label=f"Copy: {label}")
    return element("div", element("span", label), element("code", text), copy, class_="command")


def size_text(num_bytes: float) -> str:
    """Return a size with a unit, such as ``1.2 MB``."""
    for unit in _UNITS:
        if num_bytes < 1000 or unit == _UNITS[-1]:
            break
        num_bytes /= 1000
    return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.3g} {unit}"


def duration_text(seconds: float) -> str:
    """Return a duration, such as ``0:12`` or ``1:05:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _cell(cell: Cell) -> Element:
    return element(
        "td",
        cell.content,
        class_="number" if cell.is_number else "text",
        data_value=None if cell.value is None else cell.value,
    )
