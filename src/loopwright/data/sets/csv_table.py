"""A table of comma-separated values, read column by column; whatever is wrong with it is said with row and column."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import shlex
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TextIO

from loopwright.errors import SettingError, did_you_mean

Kind = Literal["number", "category", "ignore"]
KINDS: tuple[Kind, ...] = ("number", "category", "ignore")

# What tables have, in any case, where there is no value
_MISSING = frozenset({"#n/a", "-", ".", "?", "missing", "n/a", "na", "nan", "nil", "none", "null"})

# Names that an override can hold and that Hydra takes for texts, and what it wants escaped in them
_TYPABLE = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_][\w %*@?|/+\-.()\[\]{}:=,\\]*", re.ASCII | re.IGNORECASE)
_ESCAPED = re.compile(r"[()\[\]{}:=,\\]")


@dataclass(slots=True)
class Column:
    """The cells of one column, as numbers or as codes of categories.

    Attributes:
        name: as the first row of the table has it.
        kind: None until a first cell tells.
        numbers: of a column of numbers, in the order of the rows.
        codes: of a column of categories, in the order of the rows.
        categories: the code of each text, in the order in which they appear.
        first: the row and the text of the first cell.
    """

    name: str
    kind: Kind | None
    numbers: array[float] = field(default_factory=lambda: array("d"))
    codes: array[int] = field(default_factory=lambda: array("q"))
    categories: dict[str, int] = field(default_factory=dict)
    first: tuple[int, str] = (0, "")


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was read.

    Attributes:
        setting: that named the file, for messages.
        path: of the file, as it was given.
        target: name of the column to be predicted, for messages.
        types: what the user says of columns.
        sha256: of the bytes that were read.
        columns: by name, in the order of the table; those to be ignored are left out.
        rows: number of each row in the file. Row 1 is that of the names, as in a spreadsheet.
    """

    setting: str
    path: str
    target: str
    types: Mapping[str, Kind]
    sha256: str
    columns: Mapping[str, Column] = field(default_factory=dict)
    rows: array[int] = field(default_factory=lambda: array("q"))

    def fault(self, problem: str) -> SettingError:
        """The error for something that is wrong with the table."""
        return SettingError(self.setting, f"={self.path!r}{problem}")

    def typed(self, name: str, kind: Kind) -> str:
        """What makes ``kind`` of a column and leaves the others as they are, as it is typed in a shell."""
        types = {**self.types, name: kind}
        if all(_TYPABLE.fullmatch(column) for column in types):
            pairs = (f"{_ESCAPED.sub(_escape, column)}: {said}" for column, said in types.items())
            return shlex.quote(f"data.types={{{', '.join(pairs)}}}")
        quoted = (f"{json.dumps(column, ensure_ascii=False)}: {said}" for column, said in types.items())
        return f"types: {{{', '.join(quoted)}}} in a configuration file"

    def without(self, name: str) -> str:
        """The remedy for a column whose values cannot be used."""
        if name == self.target:
            return "change it, or take out its row"
        return f"{self.typed(name, 'ignore')} leaves the column out"

    def no_value(self, name: str, row: int, cell: str) -> SettingError | None:
        """The error for a cell that stands for no value in a column of numbers, or None where it stands for one."""
        if not cell:
            problem = ": is empty; expected a value"
        elif cell.casefold() in _MISSING:
            problem = f"={cell!r}: is missing; expected a number"
        elif _is_not_finite(cell):
            problem = f"={cell!r}: is not finite; expected a number"
        else:
            return None
        return self.fault(f", row {row}, column {name}{problem}; {self.without(name)}.")


def read_table(setting: str, path: str, file: Path, target: str, types: Mapping[str, Kind], delimiter: str) -> Table:
    """Read a table whose first row is the names of its columns.

    A column whose kind ``types`` does not tell is numbers or categories as its first cell is; a cell of the other kind
    is refused, as is an empty one, unless it belongs to a column that ``types`` calls one of categories.

    Args:
        setting: that named the file, for messages.
        path: of the file, as it was given.
        file: where it is.
        target: name of the column to be predicted, for messages.
        types: column to kind, for as many columns as one likes.
        delimiter: between two cells.

    Raises:
        SettingError: for a table that cannot be read, with row and column; for a column in ``types`` that is not there.
    """
    try:
        content = file.read_bytes()
        empty = Table(setting, path, target, types, hashlib.sha256(content).hexdigest())
        with io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="") as text:
            return _read(empty, text, delimiter)
    except UnicodeDecodeError as error:
        problem = f": expected text in UTF-8, found a byte {error.object[error.start]:#04x}; save the table as UTF-8."
        raise SettingError(setting, f"={path!r}{problem}") from None
    except OSError as error:
        raise SettingError(setting, f"={path!r}: cannot be read: {error.strerror}.") from None


def _read(empty: Table, text: TextIO, delimiter: str) -> Table:
    lines = _cells(empty, text, delimiter)
    names = next((cells for _, cells in lines), None)
    if names is None:
        raise empty.fault(": is empty; expected a row of column names, and rows below it.")
    _check_names(empty, names, delimiter)
    columns = [Column(name, empty.types.get(name)) for name in names]
    for row, cells in lines:
        if len(cells) != len(names):
            expected = f"expected {len(names)} cells, one for each column name, found {len(cells)}"
            raise empty.fault(f", row {row}: {expected}.")
        empty.rows.append(row)
        for column, cell in zip(columns, cells, strict=True):
            if column.kind != "ignore":
                _add(empty, column, row, cell)
    if not empty.rows:
        raise empty.fault(": has no rows below the column names; expected at least one.")
    kept = {column.name: column for column in columns if column.kind != "ignore"}
    return replace(empty, columns=kept)


def _cells(table: Table, text: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each row that is not blank."""
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


def _check_names(table: Table, names: Sequence[str], delimiter: str) -> None:
    for number, name in enumerate(names, 1):
        if not name:
            raise table.fault(f", row 1: column {number} has no name; expected a name for each column.")
        if name in names[: number - 1]:
            raise table.fault(f", row 1: two columns are called {name!r}; expected a name of its own for each.")
    if all(as_number(name) is not None for name in names):
        raise table.fault(", row 1: expected the names of the columns, found numbers; add a first row with names.")
    if len(names) == 1:
        hint = f"expected at least two columns, with {delimiter!r} between them; set delimiter if it is another"
        raise table.fault(f", row 1: has one column, {names[0]!r}; {hint}.")
    for name in table.types:
        if name not in names:
            hint = did_you_mean(name, names)
            raise SettingError(f"types.{name}", f": no such column. Available: {', '.join(names)}.{hint}")


def _add(table: Table, column: Column, row: int, cell: str) -> None:
    number = None if column.kind == "category" else as_number(cell)
    if column.kind is None:
        column.kind = "category" if number is None else "number"
        column.first = (row, cell)
    if column.kind == "number":
        if number is None:
            raise _odd_cell(table, column, row, cell)
        column.numbers.append(number)
        return
    is_inferred = column.first[0] > 0
    if is_inferred and (not cell or as_number(cell) is not None):
        raise _odd_cell(table, column, row, cell)
    column.codes.append(column.categories.setdefault(cell, len(column.categories)))


def _odd_cell(table: Table, column: Column, row: int, cell: str) -> SettingError:
    first_row, first_cell = column.first
    if cell and column.kind == "category" and all(table.no_value(column.name, 0, text) for text in column.categories):
        row, cell = column.first  # numbers come below it: this is the odd one
    if no_value := table.no_value(column.name, row, cell):
        return no_value
    where = f", row {row}, column {column.name}={cell!r}"
    if not first_row:
        return table.fault(f"{where}: expected a number; {table.without(column.name)}.")
    expected = "a number" if column.kind == "number" else "a text"
    remedy = f"{table.typed(column.name, 'category')} reads both as categories"
    return table.fault(f"{where}: expected {expected}, as row {first_row} has {first_cell!r}; {remedy}.")


def _is_not_finite(cell: str) -> bool:
    try:
        return not math.isfinite(float(cell))
    except ValueError:
        return False


def _escape(found: re.Match[str]) -> str:
    return "\\" + found[0]


def as_number(cell: str) -> float | None:
    """The finite number that a cell is, or None; no digits with underscores, which Python alone takes for a number."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in cell else None
