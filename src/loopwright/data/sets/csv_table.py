"""`read_table`, which reads a table of comma-separated values. Error messages name the row and the column."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import shlex
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal, TextIO

from loopwright.errors import SettingError, did_you_mean
from loopwright.regular_files import open_regular, read_regular

Kind = Literal["number", "category", "ignore"]
_MAX_BYTES = 4 << 30  # the whole table is read into memory
KINDS: tuple[Kind, ...] = ("number", "category", "ignore")

MAX_COLUMNS = 50_000  # reading this number of columns takes seconds
_MAX_LISTED = 50  # largest number of column names in a message

# Cells that represent a missing value. Upper and lower case are not distinguished.
_MISSING = frozenset({"#n/a", "-", ".", "?", "missing", "n/a", "na", "nan", "nil", "none", "null"})

# Numbers with a decimal comma, such as 0,5 and 1.234,5.
_HAS_COMMA = re.compile(r"[+-]?(?:\d*|\d+(?:\.\d{3})*),\d+", re.ASCII)
_POINT = "expected numbers with a decimal point, such as 1234.5; replace the decimal commas of the column"

_MAX_FAULTS = 5  # largest number of columns whose faults a message lists

# A column of text is refused if its number of different cells is above both limits.
_FEW_CATEGORIES = 10
_MAX_CATEGORY_FRACTION = 0.5

# Column names that can be typed in an override, because Hydra parses them as strings.
_TYPABLE = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_][\w %*@?|/+\-.()\[\]{}:=,\\]*", re.ASCII | re.IGNORECASE)
# Characters that need a backslash in a column name in an override.
_ESCAPED = re.compile(r"[()\[\]{}:=,\\]")


@dataclass(slots=True)
class Column:
    """The cells of one column, as numbers or as codes of categories.

    Attributes:
        name: name in the first row of the table.
        kind: type of the column; None until the first cell determines the type.
        numbers: values of a column of numbers, in row order.
        codes: category codes of a column of categories, in row order.
        categories: code of each category string, in order of first appearance.
        first: row number and string of the first cell, if this cell determined ``kind``; otherwise (0, "").
    """

    name: str
    kind: Kind | None
    numbers: array[float] = field(default_factory=lambda: array("d"))
    codes: array[int] = field(default_factory=lambda: array("q"))
    categories: dict[str, int] = field(default_factory=dict)
    first: tuple[int, str] = (0, "")


@dataclass(frozen=True, slots=True)
class Table:
    """The content of a table file.

    Attributes:
        setting: name of the setting that contains the path, for messages.
        path: path of the file, as the user gave it.
        target: name of the target column, for messages.
        types: column types that the user gave, by column name.
        sha256: SHA-256 of the file, hexadecimal.
        columns: columns by name, in the order of the table, without ignored columns.
        ignored: names of the ignored columns, in the order of the table.
        has_fixed_types: whether the types of the columns cannot be changed, because a model was trained with them.
        rows: row number in the file of each row below the column names. Row numbers count from 1, as in a spreadsheet.
    """

    setting: str
    path: str
    target: str
    types: Mapping[str, Kind]
    sha256: str
    columns: Mapping[str, Column] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    has_fixed_types: bool = False
    rows: array[int] = field(default_factory=lambda: array("q"))

    def fault(self, problem: str) -> SettingError:
        """Build the error for a problem with the table."""
        return SettingError(self.setting, f"={self.path!r}{problem}")

    def typed(self, name: str, kind: Kind) -> str:
        """Return the override that gives a column the type ``kind``. It also contains the types that the user gave."""
        return typed({**self.types, name: kind})

    def without(self, name: str) -> str:
        """Return the advice for a message about an unusable value in a column."""
        if name == self.target or self.has_fixed_types:
            return "change it, or remove its row"
        return f"use {self.typed(name, 'ignore')} to leave the column out"

    def no_value(self, name: str, row: int, cell: str) -> SettingError | None:
        """Return the error for an empty, missing or non-finite value in a column of numbers; None for other cells."""
        if not cell:
            problem = ": is empty; expected a value"
        elif cell.casefold() in _MISSING:
            problem = f"={cell!r}: represents a missing value; expected a number"
        elif _is_not_finite(cell):
            problem = f"={cell!r}: expected a finite number"
        else:
            return None
        return self.fault(f", row {row}, column {name}{problem}; {self.without(name)}.")


@dataclass(frozen=True, slots=True)
class _Fault:
    """An unusable cell of a column, and the type that the column can be given instead."""

    error: SettingError
    remedy: Kind


def read_table(
    setting: str,
    path: str,
    file: Path,
    target: str,
    types: Mapping[str, Kind],
    delimiter: str,
    *,
    checks_categories: bool = False,
    has_fixed_types: bool = False,
) -> Table:
    """Read a table whose first row contains the column names.

    If ``types`` does not contain a column, the first cell determines whether the column has numbers or categories. A
    cell of the other type is refused. An empty cell is refused, too, except in a column that ``types`` declares as
    categories.

    Args:
        setting: name of the setting that contains the path, for messages.
        path: path of the file, as the user gave it.
        file: path from which the file is opened.
        target: name of the target column, for messages.
        types: types of some or all columns, by column name.
        delimiter: character between two cells.
        checks_categories: whether a column of text is refused if its cells are numbers with decimal commas, or if the
            number of different cells is above 10 and above half the number of rows. A column that ``types`` declares
            as categories is always accepted.
        has_fixed_types: whether messages leave out the advice to change the type of a column.

    Raises:
        SettingError: for a table that cannot be read, with row and column in the message; for more than 50,000 columns;
            for an unknown column in ``types``. The message names the first fault of up to five columns.
    """
    try:
        content = read_regular(file, _MAX_BYTES, follows_links=True)
        digest = hashlib.sha256(content).hexdigest()
        empty = Table(setting, path, target, types, digest, has_fixed_types=has_fixed_types)
        if b"\0" in content:  # a file with holes, or text in UTF-16
            raise empty.fault(": expected text in UTF-8, found a null character; save the table as UTF-8.")
        with io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="") as text:
            return _read(empty, text, delimiter, checks_categories=checks_categories)
    except UnicodeDecodeError as error:
        problem = f": expected text in UTF-8, found a byte {error.object[error.start]:#04x}; save the table as UTF-8."
        raise SettingError(setting, f"={path!r}{problem}") from None
    except OSError as error:
        raise SettingError(setting, f"={path!r}: cannot be read: {error.strerror}.") from None


def read_column_names(setting: str, path: str, file: Path, delimiter: str) -> list[str]:
    """Return the cells of the first row of a table.

    Raises:
        SettingError: if the file cannot be read, or is empty.
    """
    empty = Table(setting, path, "", {}, "")
    try:
        with open(open_regular(file, follows_links=True), encoding="utf-8-sig", newline="") as text:
            names = next((cells for _, cells in _cells(empty, text, delimiter)), None)
    except (UnicodeDecodeError, OSError) as error:
        reason = "is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise SettingError(setting, f"={path!r}: cannot be read: {reason}.") from None
    if names is None:
        raise empty.fault(": is empty; expected a row of column names, and rows below it.")
    return names


def _read(empty: Table, text: TextIO, delimiter: str, *, checks_categories: bool) -> Table:
    lines = _cells(empty, text, delimiter)
    names = next((cells for _, cells in lines), None)
    if names is None:
        raise empty.fault(": is empty; expected a row of column names, and rows below it.")
    _check_number(empty, len(names))
    _check_names(empty, names, delimiter)
    columns = [Column(name, empty.types.get(name)) for name in names]
    faults: list[SettingError] = []
    # The advice of each fault includes the advice of the earlier faults, so that the last advice repairs all columns.
    advised = empty
    for row, cells in lines:
        if len(cells) != len(names):
            expected = f"expected {len(names)} cells, one for each column name, found {len(cells)}"
            faults.append(empty.fault(f", row {row}: {expected}."))
            break
        empty.rows.append(row)
        for column, cell in zip(columns, cells, strict=True):
            if column.kind != "ignore" and (fault := _add(advised, column, row, cell)) is not None:
                advised = _note(advised, column, fault, faults)
        if len(faults) >= _MAX_FAULTS:
            break
    else:
        for column in columns if checks_categories else ():
            if len(faults) < _MAX_FAULTS and (fault := _category_fault(advised, column)) is not None:
                advised = _note(advised, column, fault, faults)
    if faults:
        raise _all_faults(empty, faults)
    if not empty.rows:
        raise empty.fault(": has no rows below the column names; expected at least one.")
    kept = {column.name: column for column in columns if column.kind != "ignore"}
    return replace(empty, columns=kept, ignored=tuple(name for name in names if name not in kept))


def _note(table: Table, column: Column, fault: _Fault, faults: list[SettingError]) -> Table:
    """Add a fault to the list, and ignore the rest of its column. Return the table with the type that is advised."""
    faults.append(fault.error)
    column.kind = "ignore"
    return table if column.name == table.target else replace(table, types={**table.types, column.name: fault.remedy})


def _all_faults(table: Table, faults: Sequence[SettingError]) -> SettingError:
    first, *others = (fault.problem.removeprefix(f"={table.path!r}") for fault in faults)
    return table.fault(first + "".join(f" Also: {problem.removeprefix(', ')}" for problem in others))


def _cells(table: Table, text: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each row that is not blank."""
    reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
    row = 0
    while True:
        row += 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise table.fault(f", row {row}: {error}.") from None
        if cells is None:
            return
        if cells:
            yield row, [cell.strip() for cell in cells]


def _check_number(table: Table, num_columns: int) -> None:
    if num_columns > MAX_COLUMNS:
        raise table.fault(f", row 1: names {num_columns:,} columns; expected at most {MAX_COLUMNS:,}.")


def listed(names: Collection[str]) -> str:
    """Return names for a message. Of many names, only the first are listed."""
    more = f" and {len(names) - _MAX_LISTED:,} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(islice(names, _MAX_LISTED)) + more


def _check_names(table: Table, names: Sequence[str], delimiter: str) -> None:
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        if not name:
            raise table.fault(f", row 1: column {number} has no name; expected a name for each column.")
        if name in seen:
            raise table.fault(f", row 1: two columns are called {name!r}; expected different names.")
        seen.add(name)
    if all(as_number(name) is not None for name in names):
        raise table.fault(", row 1: expected the names of the columns, found numbers; add a first row with names.")
    if len(names) == 1 and names[0] not in table.types:
        hint = f"expected at least two columns, separated by {delimiter!r}; set delimiter for another separator"
        raise table.fault(f", row 1: has one column, {names[0]!r}; {hint}.")
    for name in table.types:
        if name not in names:
            hint = did_you_mean(name, names)
            raise SettingError(f"types.{name}", f": no such column. Available: {listed(names)}.{hint}")


def _add(table: Table, column: Column, row: int, cell: str) -> _Fault | None:
    """Add a cell to its column, or return why the cell is unusable."""
    number = None if column.kind == "category" else as_number(cell)
    if column.kind is None:
        column.kind = "category" if number is None else "number"
        column.first = (row, cell)
    if column.kind == "number":
        if number is None:
            return _odd_cell(table, column, row, cell)
        column.numbers.append(number)
        return None
    is_inferred = column.first[0] > 0
    if is_inferred and (not cell or as_number(cell) is not None):
        return _odd_cell(table, column, row, cell)
    column.codes.append(column.categories.setdefault(cell, len(column.categories)))
    return None


def _odd_cell(table: Table, column: Column, row: int, cell: str) -> _Fault:
    first_row, first_cell = column.first
    if cell and column.kind == "category" and all(table.no_value(column.name, 0, text) for text in column.categories):
        row, cell = column.first  # All earlier cells represent missing values, so report the first cell.
    if no_value := table.no_value(column.name, row, cell):
        return _Fault(no_value, "ignore")
    where = f", row {row}, column {column.name}={cell!r}"
    if column.kind == "number" and _HAS_COMMA.fullmatch(cell):
        return _Fault(table.fault(f"{where}: {_POINT}, or {table.without(column.name)}."), "ignore")
    if not first_row:
        return _Fault(table.fault(f"{where}: expected a number; {table.without(column.name)}."), "ignore")
    expected = "a number" if column.kind == "number" else "text"
    remedy = f"use {table.typed(column.name, 'category')} to read both as categories"
    problem = f"{where}: expected {expected}, because row {first_row} has {first_cell!r}; {remedy}."
    return _Fault(table.fault(problem), "category")


def _category_fault(table: Table, column: Column) -> _Fault | None:
    """Return the fault of a column of text that probably does not contain categories, or None.

    Its cells are numbers with decimal commas, or too many of them are different, as in a column of names or notes.
    """
    row, cell = column.first
    if column.kind != "category" or not row:
        return None
    keeps = f"use {table.typed(column.name, 'category')} to read its cells as categories"
    if all(_HAS_COMMA.fullmatch(text) or as_number(text) is not None for text in column.categories):
        where = f", row {row}, column {column.name}={cell!r}"
        return _Fault(table.fault(f"{where}: {_POINT}, or {keeps}."), "category")
    num_rows, num_categories = len(table.rows), len(column.categories)
    if num_categories <= _FEW_CATEGORIES or num_categories <= num_rows * _MAX_CATEGORY_FRACTION:
        return None
    found = f", column {column.name}: expected numbers, or categories that repeat, found {num_categories:,} different"
    advice = keeps if column.name == table.target else f"{table.without(column.name)}, or {keeps}"
    return _Fault(table.fault(f"{found} texts in {num_rows:,} rows; {advice}."), "ignore")


def _is_not_finite(cell: str) -> bool:
    try:
        return not math.isfinite(float(cell))
    except ValueError:
        return False


def _escape(found: re.Match[str]) -> str:
    return "\\" + found[0]


def typed(types: Mapping[str, Kind]) -> str:
    """Return the override ``data.types={…}`` with the given types of columns.

    If Hydra cannot parse a column name in an override, return the line for a configuration file instead.
    """
    if all(_TYPABLE.fullmatch(column) for column in types):
        pairs = (f"{_ESCAPED.sub(_escape, column)}: {given}" for column, given in types.items())
        return shlex.quote(f"data.types={{{', '.join(pairs)}}}")
    quoted = (f"{json.dumps(column, ensure_ascii=False)}: {given}" for column, given in types.items())
    return f"types: {{{', '.join(quoted)}}} in a configuration file"


def as_number(cell: str) -> float | None:
    """Return the finite number in a cell, or None. In contrast to Python, ``1_000`` is not a number."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in cell else None
