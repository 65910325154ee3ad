"""`TableEncoding`, which converts the rows of a table to tensors, and the functions that build an encoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loopwright.data.sets.column_encoding import (
    CategoryEncoding,
    ColumnEncoding,
    NumberEncoding,
    fit_feature,
    fit_number,
    in_order,
    read_column,
)
from loopwright.data.sets.table import Table
from loopwright.data.sets.table_faults import Fault, Kind
from loopwright.data.sets.tensors import TensorData
from loopwright.errors import on_one_line, refuse_type

_MAX_DESCRIBED = 20  # largest number of columns in the description of a table


class TableData(TensorData):
    """Rows of a table as tensors: ``features`` (float32), and either ``label`` (int64) or ``target`` (float32)."""

    def __init__(self, tensors: dict[str, Tensor], columns_text: str) -> None:
        super().__init__(tensors)
        self._columns_text = columns_text

    @property
    def columns_text(self) -> str:
        """Kind of each column, on one line: ``age: number, city: 3 categories; target species: 2 classes``."""
        return self._columns_text


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEncoding:
    """Converts rows of a table to tensors.

    Numbers are standardised, and categories are one-hot encoded. Shape suffixes: N rows, F features.

    Attributes:
        columns: feature columns, in the order of the features.
        ignored: names of the columns that are not used.
        target: target column. If it is a column of categories, its categories are the classes.
    """

    columns: tuple[ColumnEncoding, ...]
    ignored: tuple[str, ...]
    target: ColumnEncoding

    @property
    def feature_names(self) -> list[str]:
        """Names of the features in order. A name is a column name or has the form ``column=category``."""
        return [name for column in self.columns for name in column.feature_names]

    @property
    def kinds(self) -> dict[str, Kind]:
        """Kind of each column by name, as in the setting ``types`` of `csv`."""
        used: dict[str, Kind] = {column.name: column.kind for column in (*self.columns, self.target)}
        return used | dict.fromkeys(self.ignored, "ignore")

    @property
    def fills(self) -> bool:
        """Whether empty cells are replaced."""
        return any(column.fill is not None for column in self.columns)

    def describe(self, table: Table) -> str:
        """Return the kind of each column, and its number of empty cells, on one line.

        Only the first 20 feature columns are described.
        """
        shown = [_description(column, table) for column in self.columns[:_MAX_DESCRIBED]]
        num_more = len(self.columns) - len(shown)
        more = [f"and {num_more:,} more columns"] if num_more else []
        return f"{', '.join(shown + more)}; target {_shown(self.target.name)}: {self._target_description()}"

    def _target_description(self) -> str:
        target = self.target
        if isinstance(target, CategoryEncoding):
            return f"{len(target.categories):,} classes"
        return "number" if target.unit == target.name else f"number in standard deviations (1 = {target.deviation:.4g})"

    def features(self, table: Table, rows_N: Tensor) -> Tensor:
        """Return the features of the rows at the zero-based positions ``rows_N``: float32, of shape (N, F).

        Raises:
            SettingError: for a number too large for float32.
        """
        return torch.cat([column.encode(table, rows_N) for column in self.columns], dim=1)

    def encode(self, table: Table, rows_N: Tensor) -> TableData:
        """Convert the features and targets of the rows at the zero-based positions ``rows_N``.

        Raises:
            SettingError: for an unknown class, and for a number too large for float32.
        """
        tensors = {"features": self.features(table, rows_N)}
        if isinstance(self.target, CategoryEncoding):
            tensors["label"] = self.target.labels(table, rows_N)
        else:
            tensors["target"] = self.target.encode(table, rows_N)[:, 0]
        return TableData(tensors, self.describe(table))

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``data.json``, from which `read_table_encoding` builds an equal encoding."""
        ignored = [{"name": name, "kind": "ignore"} for name in self.ignored]
        target = self.target.to_json()
        if isinstance(self.target, NumberEncoding):
            target["unit"] = self.target.unit
        else:
            target["classes"] = target.pop("categories")
        return {"data": "csv", "columns": [*(each.to_json() for each in self.columns), *ignored], "target": target}


def fit_table(table: Table, rows_N: Tensor, *, standardizes: bool) -> TableEncoding:
    """Return the encoding of a table. The training rows determine all values except the classes.

    Args:
        table: table that contains the training rows and the target column.
        rows_N: positions of the training rows in the table, from 0, int64.
        standardizes: whether numbers are shifted and scaled to mean 0 and standard deviation 1 over the training rows.

    Raises:
        SettingError: if there is no feature column, or if a column has too many categories or too large numbers.
    """
    features = [column for name, column in table.columns.items() if name != table.target]
    if not features:
        raise table.error(f": expected a feature column besides {table.target}; all other columns are ignored.")
    found = [fit_feature(table, column, rows_N, standardizes=standardizes) for column in features]
    column = table.columns[table.target]
    target: ColumnEncoding | Fault
    if column.kind == "number":
        target = fit_number(table, column, rows_N, standardizes=standardizes)
    else:
        # The classes come from the whole table. A class that occurs only in validation rows needs a label, too.
        target = CategoryEncoding(column.name, in_order(column.categories))
    faults = [each for each in (*found, target) if isinstance(each, Fault)]
    if faults or isinstance(target, Fault):
        raise table.refused(faults)
    columns = tuple(each for each in found if not isinstance(each, Fault))
    return TableEncoding(columns=columns, ignored=table.ignored, target=target)


def read_table_encoding(encoding: Mapping[str, Any]) -> TableEncoding:
    """Return the encoding that ``data.json`` describes.

    Args:
        encoding: content of the file, as ``loopwright.records.read_encoding`` returns it.

    Raises:
        SettingError: if the content does not have the form that `TableEncoding.to_json` returns.
    """
    found = encoding.get("columns")
    if not isinstance(found, list):
        raise refuse_type("columns", found, "the list of columns that data=csv records")
    read = [read_column(f"columns[{index}]", each) for index, each in enumerate(found)]
    target = read_column("target", encoding.get("target"), "classes")
    if isinstance(target, str):
        raise refuse_type("target.kind", "ignore", "number or category")
    return TableEncoding(
        columns=tuple(each for each in read if not isinstance(each, str)),
        ignored=tuple(each for each in read if isinstance(each, str)),
        target=target,
    )


def _description(column: ColumnEncoding, table: Table) -> str:
    num_empty = 0 if column.fill is None else table.columns[column.name].num_empty
    cells = f" ({num_empty:,} empty cell{'' if num_empty == 1 else 's'} filled)" if num_empty else ""
    return f"{_shown(column.name)}: {column.description}{cells}"


def _shown(name: str) -> str:
    return on_one_line(name, 40)
