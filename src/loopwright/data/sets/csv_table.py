"""`read_table`, which reads a table from a text file. Error messages contain the row and the column."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TextIO

from loopwright.data.sets.table import Column, Table
from loopwright.data.sets.table_cells import as_number, is_missing
from loopwright.data.sets.table_faults import (
    AS_CATEGORIES,
    BOTH_AS_CATEGORIES,
    FILL_EMPTY,
    LEAVE_OUT,
    READ_COMMAS,
    READ_POINTS,
    Fault,
    Kind,
)
from loopwright.data.sets.table_layout import SEPARATORS, TableLayout, not_text
from loopwright.errors import SettingError, did_you_mean, on_one_line
from loopwright.regular_files import open_regular, read_regular

_MAX_BYTES = 4 << 30  # the whole table is read into memory
KINDS: tuple[Kind, ...] = ("number", "category", "ignore")

MAX_COLUMNS = 50_000  # reading this number of columns takes seconds
_MAX_LISTED = 50  # largest number of column names in a message

# A column of text is refused if its number of different cells exceeds _FEW_CATEGORIES, and exceeds the number of rows
# times _MAX_CATEGORY_FRACTION.
_FEW_CATEGORIES = 10
_MAX_CATEGORY_FRACTION = 0.5


def read_table(
    setting: str,
    path: str,
    file: Path,
    target: str,
    types: Mapping[str, Kind],
    layout: TableLayout,
    *,
    fills: bool = False,
    checks_categories: bool = False,
    has_fixed_types: bool = False,
) -> Table:
    """Read a table whose first row contains the column names.

    If ``types`` does not contain a column, the first cell with a value determines whether the column has numbers or
    categories. A cell of the other type is refused. Empty cells are accepted in a column that ``types``
    declares as categories, and, if ``fills`` is True, in every feature column. Other empty cells are refused.

    Args:
        setting: name of the setting that contains the path, for messages.
        path: path of the file, as the user gave it.
        file: path from which the file is opened.
        target: name of the target column, in which missing values are never accepted.
        types: types of some or all columns, by column name.
        layout: delimiter, decimal sign and text encoding of the file.
        fills: whether empty cells are accepted, except in the target column.
        checks_categories: whether a column of text is refused if it has too many categories for its number of rows, or
            if its cells are numbers with the other decimal sign. A column that ``types`` declares as categories is
            always accepted.
        has_fixed_types: whether messages omit the advice to change the type of a column.

    Raises:
        SettingError: for a table that cannot be read, with row and column in the message; for more than 50,000 columns;
            for an unknown column in ``types``. The message names the first fault of up to ten columns, and what to
            type to repair all columns.
    """
    empty = Table(setting, path, target, types, layout, has_fixed_types=has_fixed_types, fills=fills)
    try:
        content = read_regular(file, _MAX_BYTES, follows_links=True)
    except OSError as error:
        raise empty.error(f": cannot be read: {error.strerror}.") from None
    if b"\0" in content and not layout.has_null_bytes:  # a file with holes, or text in UTF-16
        raise empty.error(not_text(content, layout))
    try:
        with io.TextIOWrapper(io.BytesIO(content), encoding=layout.codec, newline="") as text:
            table = replace(empty, sha256=hashlib.sha256(content).hexdigest())
            return _read(table, text, checks_categories=checks_categories)
    except UnicodeError as error:
        raise empty.error(not_text(content, layout, error)) from None


def read_column_names(setting: str, path: str, file: Path, layout: TableLayout) -> list[str]:
    """Return the cells of the first row of a table.

    Raises:
        SettingError: if the file cannot be read, or is empty.
    """
    empty = Table(setting, path, "", layout=layout)
    try:
        with open(open_regular(file, follows_links=True), encoding=layout.codec, newline="") as text:
            names = next((cells for _, cells in _cells(empty, text)), None)
    except UnicodeDecodeError as error:
        raise empty.error(not_text(error.object, layout, error)) from None
    except (UnicodeError, OSError) as error:
        raise empty.error(f": cannot be read: {getattr(error, 'strerror', error)}.") from None
    if names is None:
        raise empty.error(": is empty; expected a row of column names, and rows below it.")
    return names


def _read(empty: Table, text: TextIO, *, checks_categories: bool) -> Table:
    lines = _cells(empty, text)
    names = next((cells for _, cells in lines), None)
    if names is None:
        raise empty.error(": is empty; expected a row of column names, and rows below it.")
    _check_number(empty, len(names))
    _check_names(empty, names)
    columns = [Column(name, empty.types.get(name)) for name in names]
    faults: list[Fault] = []
    for row, cells in lines:
        if len(cells) != len(names):
            expected = f"expected {len(names)} cells, one for each column name, found {len(cells)}"
            if all(fault.column for fault in faults):  # only the first such row is reported
                faults.append(Fault(f", row {row}: {expected}"))
            continue
        empty.rows.append(row)
        for column, cell in zip(columns, cells, strict=True):
            if column.kind != "ignore" and (fault := _add(empty, column, row, cell)) is not None:
                _note(fault, column, faults)
    for column in columns if empty.rows else ():
        if (fault := _column_fault(empty, column, checks_categories=checks_categories)) is not None:
            _note(fault, column, faults)
    if faults:
        raise empty.refused(_possible(faults, columns))
    if not empty.rows:
        raise empty.error(": has no rows below the column names; expected at least one.")
    kept = {column.name: column for column in columns if column.kind != "ignore"}
    return replace(empty, columns=kept, ignored=tuple(name for name in names if name not in kept))


def _note(fault: Fault, column: Column, faults: list[Fault]) -> None:
    """Add a fault to the list. Unless `FILL_EMPTY` is a remedy, the later cells of its column are ignored."""
    if fault.remedies and fault.remedies[0].kind is not None:
        faults[:] = [other for other in faults if other.column != column.name]  # repaired by the new remedy
    faults.append(fault)
    if FILL_EMPTY not in fault.remedies:
        column.kind = "ignore"


def _possible(faults: Sequence[Fault], columns: Sequence[Column]) -> list[Fault]:
    """Return the faults without the remedy to read decimal commas if other numbers of the table have decimal points."""
    wrong = [fault for fault in faults if READ_COMMAS in fault.remedies]
    if not wrong or not any(number % 1 for each in columns for number in each.numbers if not math.isnan(number)):
        return list(faults)
    by_hand = "replace the decimal commas of the column"
    changed = {
        fault.column: replace(
            fault, remedies=tuple(each for each in fault.remedies if each != READ_COMMAS), by_hand=by_hand
        )
        for fault in wrong
    }
    return [changed.get(fault.column, fault) for fault in faults]


def _cells(table: Table, text: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each row that is not blank."""
    reader = csv.reader(text, delimiter=table.layout.delimiter, skipinitialspace=True, strict=True)
    row = 0
    while True:
        row += 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise table.error(f", row {row}: {error}.") from None
        if cells is None:
            return
        if cells:
            yield row, [cell.strip() for cell in cells]


def _check_number(table: Table, num_columns: int) -> None:
    if num_columns > MAX_COLUMNS:
        raise table.error(f", row 1: names {num_columns:,} columns; expected at most {MAX_COLUMNS:,}.")


def listed(names: Collection[str]) -> str:
    """Return names for a message. If there are more than 50 names, the first 50 are listed."""
    more = f" and {len(names) - _MAX_LISTED:,} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(islice(names, _MAX_LISTED)) + more


def _check_names(table: Table, names: Sequence[str]) -> None:
    unnamed = [str(number) for number, name in enumerate(names, 1) if not name]
    repeated = [repr(name) for name, number in Counter(names).items() if name and number > 1]
    problems = [f"no name for column {listed(unnamed)}"] if unnamed else []
    problems += [f"several columns are called {listed(repeated)}"] if repeated else []
    if problems:
        raise table.error(f", row 1: {'; '.join(problems)}; expected a different name for each column.")
    if all(as_number(name) is not None for name in names):
        raise table.error(", row 1: expected the names of the columns, found numbers; add a first row with names.")
    if len(names) == 1 and names[0] not in table.types:
        used = SEPARATORS.get(table.layout.delimiter, repr(table.layout.delimiter))
        found = max(SEPARATORS, key=names[0].count)
        other = SEPARATORS[found] if found in names[0] else "NAME"
        hint = f"expected at least two columns, separated by {used}; for another separator, use data.delimiter={other}"
        raise table.error(f", row 1: has one column, {names[0]!r}; {hint}.")
    for name in table.types:
        if name not in names:
            hint = did_you_mean(name, names)
            raise SettingError(f"types.{name}", f": no such column. Available: {listed(names)}.{hint}")


def _add(table: Table, column: Column, row: int, cell: str) -> Fault | None:
    """Add a cell to its column, or return why the cell is unusable."""
    number = None if column.kind == "category" else as_number(cell, table.layout.decimal)
    is_value = number is not None or (cell != "" if column.kind == "category" else not is_missing(cell))
    if not is_value and column.name != table.target:
        return _add_missing(table, column, row, cell)
    fault = None
    if column.kind is None:
        column.kind = "category" if number is None else "number"
        column.first = (row, cell)
        fault = _add_leading(table, column)
    if column.kind == "number":
        if number is None:
            return _odd_cell(table, column, row, cell)
        column.numbers.append(number)
        return fault
    is_inferred = column.first[0] > 0
    if is_inferred and (not cell or as_number(cell, table.layout.decimal) is not None):
        return _odd_cell(table, column, row, cell)
    column.add_category(cell)
    return fault


def _add_missing(table: Table, column: Column, row: int, cell: str) -> Fault | None:
    """Add a missing value to its column. Return a fault for the first missing value if missing values are refused."""
    if column.kind is None:
        column.leading.append((row, cell))
        return None
    column.num_empty += 1
    if column.kind == "number":
        column.numbers.append(math.nan)
    else:
        column.add_category(cell)
    is_accepted = table.fills or (column.kind == "category" and not column.first[0])
    return None if is_accepted or column.num_empty > 1 else table.no_value(column.name, row, cell)


def _add_leading(table: Table, column: Column) -> Fault | None:
    """Add the missing values above the first value. In a column of categories, NA becomes a category."""
    faults = []
    for row, cell in column.leading:
        if cell and column.kind == "category":
            column.add_category(cell)
        else:
            faults.append(_add_missing(table, column, row, cell))
    column.leading.clear()
    return next((fault for fault in faults if fault is not None), None)


def _odd_cell(table: Table, column: Column, row: int, cell: str) -> Fault:
    name, (first_row, first_cell) = column.name, column.first
    if cell and column.kind == "category" and all(table.no_value(name, 0, text) for text in column.categories):
        row, cell = column.first  # All earlier cells represent missing values, so report the first cell.
    if no_value := table.no_value(name, row, cell):
        return no_value
    where = f", row {row}, column {name}={cell!r}"
    if column.kind == "number" and _is_other_number(table, cell):
        return _other_decimal(table, name, where)
    if column.kind == "category" and all(_is_other_number(table, text) for text in column.categories):
        return _other_decimal(table, name, f", row {first_row}, column {name}={first_cell!r}")
    if not first_row:
        return table.unusable(f"{where}: expected a number", name)
    expected = "a number" if column.kind == "number" else "text"
    return Fault(
        f"{where}: expected {expected}, because row {first_row} has {first_cell!r}", name, (BOTH_AS_CATEGORIES,)
    )


def _is_other_number(table: Table, cell: str) -> bool:
    """Return whether a cell is a number with a decimal comma instead of a decimal point, or the reverse."""
    return as_number(cell, "." if table.layout.decimal == "," else ",") is not None


def _other_decimal(table: Table, name: str, where: str) -> Fault:
    if table.layout.decimal == ",":
        expected, remedy = "comma, such as 1234,5", READ_POINTS
    else:
        expected, remedy = "point, such as 1234.5", READ_COMMAS
    return table.unusable(f"{where}: expected numbers with a decimal {expected}", name, remedy)


def _column_fault(table: Table, column: Column, *, checks_categories: bool) -> Fault | None:
    """Return a fault that affects all cells of a column; None if the column can be used."""
    if column.kind is None:
        return table.unusable(f", column {column.name}: has no values", column.name)
    row, cell = column.first
    if column.kind != "category" or not row or not checks_categories:
        return None
    texts = [text for text in column.categories if not is_missing(text)]
    if texts and all(_is_other_number(table, text) for text in texts):
        fault = _other_decimal(table, column.name, f", row {row}, column {column.name}={cell!r}")
        return replace(fault, remedies=(*fault.remedies, AS_CATEGORIES))
    num_rows, num_categories = len(table.rows), len(column.categories)
    if num_categories <= _FEW_CATEGORIES or num_categories <= num_rows * _MAX_CATEGORY_FRACTION:
        return None
    found = f", column {column.name}: expected numbers, or categories that repeat, found {num_categories:,} different"
    remedies = (AS_CATEGORIES,) if column.name == table.target else (LEAVE_OUT, AS_CATEGORIES)
    shown = f"{found} texts in {num_rows:,} rows, such as {on_one_line(repr(cell), 40)}"
    return Fault(shown, column.name, remedies)
