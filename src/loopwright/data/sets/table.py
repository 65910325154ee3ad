"""`Table`, the content of a table file, and `Column`, the cells of one column."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loopwright.data.sets.table_cells import is_missing, is_not_finite
from loopwright.data.sets.table_faults import FILL_EMPTY, LEAVE_OUT, Fault, Kind, Remedy, all_faults
from loopwright.data.sets.table_layout import TableLayout
from loopwright.errors import SettingError


@dataclass(slots=True)
class Column:
    """The cells of one column, as numbers or as codes of categories.

    Attributes:
        name: name in the first row of the table.
        kind: type of the column; None until the first cell with a value determines the type.
        numbers: values of a column of numbers, in row order; NaN for an empty cell.
        codes: category codes of a column of categories, in row order.
        categories: code of each category string, in order of first appearance.
        first: row number and string of the first cell with a value, if it determined ``kind``; otherwise (0, "").
        leading: row number and string of each missing value above the first value, until ``kind`` is determined.
        num_empty: number of missing values; in a column of categories, only empty cells are missing values.
    """

    name: str
    kind: Kind | None
    numbers: array[float] = field(default_factory=lambda: array("d"))
    codes: array[int] = field(default_factory=lambda: array("q"))
    categories: dict[str, int] = field(default_factory=dict)
    first: tuple[int, str] = (0, "")
    leading: list[tuple[int, str]] = field(default_factory=list)
    num_empty: int = 0

    def add_category(self, cell: str) -> None:
        """Add the cell of one more row to a column of categories."""
        self.codes.append(self.categories.setdefault(cell, len(self.categories)))


@dataclass(frozen=True, slots=True)
class Table:
    """The content of a table file.

    Attributes:
        setting: name of the setting that contains the path, for messages.
        path: path of the file, as the user gave it.
        target: name of the target column, in which missing values are never accepted.
        types: column types that the user gave, by column name.
        layout: delimiter, decimal sign and text encoding of the file.
        sha256: SHA-256 of the file, hexadecimal.
        columns: columns by name, in the order of the table, without ignored columns.
        ignored: names of the ignored columns, in the order of the table.
        has_fixed_types: whether the types of the columns cannot be changed, because a model was trained with them.
        fills: whether empty cells are accepted, except in the target column.
        rows: row numbers of the rows below the column names. Row numbers count from 1, as in a spreadsheet.
    """

    setting: str
    path: str
    target: str
    types: Mapping[str, Kind] = field(default_factory=dict)
    layout: TableLayout = field(default_factory=TableLayout)
    sha256: str = ""
    columns: Mapping[str, Column] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    has_fixed_types: bool = False
    fills: bool = False
    rows: array[int] = field(default_factory=lambda: array("q"))

    def error(self, problem: str) -> SettingError:
        """Build the error for a problem with the table."""
        return SettingError(self.setting, f"={self.path!r}{problem}")

    def refused(self, faults: Sequence[Fault]) -> SettingError:
        """Build one error that describes all faults."""
        return self.error(all_faults(faults, self.types))

    def unusable(self, problem: str, name: str, *remedies: Remedy) -> Fault:
        """Build the fault of an unusable value in a column.

        Args:
            problem: text of the message after the path.
            name: name of the column.
            remedies: remedies for the message. The remedy `LEAVE_OUT` is added if the column can be left out.
        """
        if not self.has_fixed_types and name != self.target:
            remedies = (*remedies, LEAVE_OUT)
        by_hand = "change it, or remove its row"
        if self.has_fixed_types and name != self.target:
            by_hand += "; a run that is trained with data.missing=fill fills empty cells"
        return Fault(problem, name, remedies, by_hand="" if remedies else by_hand)

    def no_value(self, name: str, row: int, cell: str) -> Fault | None:
        """Return the fault of an empty, missing or non-finite value in a column of numbers; None for other cells."""
        if not cell:
            problem = ": is empty; expected a value"
        elif is_missing(cell):
            problem = f"={cell!r}: represents a missing value; expected a number"
        elif is_not_finite(cell):
            problem = f"={cell!r}: expected a finite number"
        else:
            return None
        is_fillable = is_missing(cell) and not self.has_fixed_types and name != self.target
        return self.unusable(f", row {row}, column {name}{problem}", name, *([FILL_EMPTY] if is_fillable else []))
