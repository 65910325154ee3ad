"""`Encoder`, which converts the columns of a table to tensors.

Numbers are standardised, and categories are one-hot encoded.

Shape suffixes: N rows, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loopwright.data.sets.csv_table import Column, Table, as_number
from loopwright.data.sets.tensors import TensorData
from loopwright.errors import did_you_mean, on_one_line

# Largest number of categories in a column. A column with more distinct strings contains names or notes, not categories.
# Each string would become a feature.
_MAX_CATEGORIES = 256

_MAX_DESCRIBED = 20  # largest number of columns in the description of a table


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Names and constants with which the rows of a table were converted to tensors.

    Attributes:
        feature_names: names of the features in order. A name is a column name or has the form ``column=category``.
        target: name of the target column.
        classes: target strings for the labels 0, 1, …; empty for a numeric target.
        target_mean: number that was subtracted from a numeric target before the division by ``target_scale``.
        target_scale: number by which a numeric target was divided.
    """

    feature_names: tuple[str, ...]
    target: str
    classes: tuple[str, ...] = ()
    target_mean: float = 0.0
    target_scale: float = 1.0


class TableData(TensorData):
    """Rows of a table as tensors: ``features`` (float32), and either ``label`` (int64) or ``target`` (float32)."""

    def __init__(self, tensors: dict[str, Tensor], encoding: Encoding, columns_text: str) -> None:
        super().__init__(tensors)
        self._encoding = encoding
        self._columns_text = columns_text

    @property
    def encoding(self) -> Encoding:
        """Names and constants with which the table was converted to these tensors."""
        return self._encoding

    @property
    def columns_text(self) -> str:
        """What the columns were taken for, on one line: ``age: number, city: 3 categories; target price: number``."""
        return self._columns_text


@dataclass(frozen=True, slots=True)
class _Number:
    name: str
    mean: float
    scale: float

    @property
    def names(self) -> list[str]:
        return [self.name]

    def encode(self, table: Table, rows_N: Tensor) -> Tensor:
        values_N = torch.tensor(table.columns[self.name].numbers, dtype=torch.float64)[rows_N]
        encoded_N = ((values_N - self.mean) / self.scale).float()
        is_lost_N = ~encoded_N.isfinite()
        if is_lost_N.any():
            where = f", row {table.rows[int(rows_N[is_lost_N][0])]}, column {self.name}={values_N[is_lost_N][0]:g}"
            raise table.fault(
                f"{where}: is too large; expected a number in the range of float32; {table.without(self.name)}."
            )
        return encoded_N[:, None]


@dataclass(frozen=True, slots=True)
class _Category:
    name: str
    categories: Sequence[str]

    @property
    def names(self) -> list[str]:
        return [f"{self.name}={category}" for category in self.categories]

    def encode(self, table: Table, rows_N: Tensor) -> Tensor:
        """Return a 0/1 column for each category. A category that the training rows lack is 0 in all columns."""
        column = table.columns[self.name]
        place = {category: number for number, category in enumerate(self.categories)}
        num_known = len(place)
        places = torch.tensor([place.get(category, num_known) for category in column.categories])
        chosen_N = places[torch.tensor(column.codes)[rows_N]]
        return (chosen_N[:, None] == torch.arange(num_known)).float()


class Encoder:
    """Converts rows of a table to tensors. The training rows determine the categories, means and scales.

    Args:
        table: table that contains the training rows.
        target: name of the target column.
        rows_N: positions of the training rows in the table, from 0, int64.
        standardizes: whether numbers are shifted and scaled to mean 0 and standard deviation 1 over the training rows.

    Raises:
        SettingError: if there is no feature column, or if a column has too many categories or too large numbers.
    """

    def __init__(self, table: Table, target: str, rows_N: Tensor, *, standardizes: bool) -> None:
        features = [column for name, column in table.columns.items() if name != target]
        if not features:
            raise table.fault(f": expected a feature column besides {target}; all other columns are ignored.")
        self._parts: list[_Number | _Category] = [_fit(table, column, rows_N, standardizes) for column in features]
        column = table.columns[target]
        names = tuple(name for part in self._parts for name in part.names)
        self._target: _Number | None = None
        if column.kind == "number":
            self._target = _fit_number(table, column, rows_N, standardizes)
            mean, scale = self._target.mean, self._target.scale
            self.encoding = Encoding(feature_names=names, target=target, target_mean=mean, target_scale=scale)
        else:
            # The classes come from the whole table, because a class that occurs only in validation rows needs a label,
            # too.
            self.encoding = Encoding(feature_names=names, target=target, classes=_in_order(column.categories))
        self._columns_text = _describe_columns(self._parts, target, self.encoding.classes)

    def encode(self, table: Table, rows_N: Tensor) -> TableData:
        """Convert the rows of ``table`` at the positions ``rows_N``, which count from 0.

        Raises:
            SettingError: for a class that the training table does not have, and for a number too large for float32.
        """
        features_NF = torch.cat([part.encode(table, rows_N) for part in self._parts], dim=1)
        column = table.columns[self.encoding.target]
        if self._target is not None:
            target_N = self._target.encode(table, rows_N)[:, 0]
            return TableData({"features": features_NF, "target": target_N}, self.encoding, self._columns_text)
        label = {name: number for number, name in enumerate(self.encoding.classes)}
        for name, code in column.categories.items():
            if name not in label:
                row = table.rows[column.codes.index(code)]
                expected = f"one of the classes in the training table: {', '.join(label)}"
                where = f", row {row}, column {column.name}={name!r}"
                raise table.fault(f"{where}: expected {expected}.{did_you_mean(name, label)}")
        labels = torch.tensor([label[name] for name in column.categories])
        label_N = labels[torch.tensor(column.codes)[rows_N]]
        return TableData({"features": features_NF, "label": label_N}, self.encoding, self._columns_text)


def _describe_columns(parts: Sequence[_Number | _Category], target: str, classes: Sequence[str]) -> str:
    """Describe the kind of each column on one line. Of many columns, the first ones are described."""
    shown = [f"{_shown(part.name)}: {_kind(part)}" for part in parts[:_MAX_DESCRIBED]]
    more = [f"and {len(parts) - len(shown):,} more columns"] if len(parts) > len(shown) else []
    target_kind = f"{len(classes):,} classes" if classes else "number"
    return f"{', '.join(shown + more)}; target {_shown(target)}: {target_kind}"


def _kind(part: _Number | _Category) -> str:
    if isinstance(part, _Number):
        return "number"
    return f"{len(part.categories):,} categor{'y' if len(part.categories) == 1 else 'ies'}"


def _shown(name: str) -> str:
    return on_one_line(name, 40)


def _fit(table: Table, column: Column, rows_N: Tensor, standardizes: bool) -> _Number | _Category:
    if column.kind == "number":
        return _fit_number(table, column, rows_N, standardizes)
    found = set(torch.tensor(column.codes)[rows_N].tolist())
    categories = _in_order([name for name, code in column.categories.items() if code in found])
    if len(categories) > _MAX_CATEGORIES:
        expected = f"expected at most {_MAX_CATEGORIES} categories, found {len(categories):,}"
        raise table.fault(f", column {column.name}: {expected}; {table.without(column.name)}.")
    return _Category(column.name, categories)


def _fit_number(table: Table, column: Column, rows_N: Tensor, standardizes: bool) -> _Number:
    if not standardizes:
        return _Number(column.name, 0.0, 1.0)
    values_N = torch.tensor(column.numbers, dtype=torch.float64)[rows_N]
    if values_N.min() == values_N.max():
        return _Number(column.name, values_N[0].item(), 1.0)  # All encoded values are then exactly 0.
    mean, scale = values_N.mean().item(), values_N.std(correction=0).item()
    if not math.isfinite(mean) or not math.isfinite(scale):
        largest = f"its largest number is {values_N.abs().max():g}"
        problem = f"its standard deviation is not finite ({largest}); expected smaller numbers"
        raise table.fault(f", column {column.name}: {problem}; {table.without(column.name)}.")
    return _Number(column.name, mean, scale or 1.0)  # The scale is 0 if the squares of small numbers underflow.


def _in_order(categories: Sequence[str] | dict[str, int]) -> tuple[str, ...]:
    """Sort categories by value if all are numbers, so that 10 comes after 9; otherwise sort them as strings."""
    numbers = {name: as_number(name) for name in categories}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(categories, key=lambda name: (numbers[name], name)))
    return tuple(sorted(categories))
