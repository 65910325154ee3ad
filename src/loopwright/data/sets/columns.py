"""From the columns of a table to tensors: numbers are standardised, categories become one column each.

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
from loopwright.errors import did_you_mean

# A column with more texts than this is names or notes rather than categories, and would make as many features.
_MAX_CATEGORIES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How the rows of a table were made into tensors.

    Attributes:
        feature_names: of each feature: a column's name, or ``column=category``.
        target: name of the column to be predicted.
        classes: texts of the target that the labels 0, 1, … stand for; empty where the target is a number.
        target_mean: what was taken off a target that is a number, before
        target_scale: it was divided by this.
    """

    feature_names: tuple[str, ...]
    target: str
    classes: tuple[str, ...] = ()
    target_mean: float = 0.0
    target_scale: float = 1.0


class TableData(TensorData):
    """The rows of a table as tensors: ``features``, float32; and ``label``, int64, or ``target``, float32."""

    def __init__(self, tensors: dict[str, Tensor], encoding: Encoding) -> None:
        super().__init__(tensors)
        self._encoding = encoding

    @property
    def encoding(self) -> Encoding:
        """How the tensors were made."""
        return self._encoding


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
                f"{where}: is too large; expected a number that float32 holds; {table.without(self.name)}."
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
        """One column per category; a row of a category that the training rows do not have is zero in all."""
        column = table.columns[self.name]
        place = {category: number for number, category in enumerate(self.categories)}
        num_known = len(place)
        places = torch.tensor([place.get(category, num_known) for category in column.categories])
        chosen_N = places[torch.tensor(column.codes)[rows_N]]
        return (chosen_N[:, None] == torch.arange(num_known)).float()


class Encoder:
    """Makes tensors of a table's rows, by what its training rows are.

    Args:
        table: to fit it to.
        target: the column to be predicted.
        rows_N: the training rows, by their places in the table, int64.
        standardizes: whether numbers are shifted and scaled to mean 0 and standard deviation 1 in the training rows.

    Raises:
        SettingError: if no column is left for the features, or one has too many categories or too large numbers.
    """

    def __init__(self, table: Table, target: str, rows_N: Tensor, *, standardizes: bool) -> None:
        features = [column for name, column in table.columns.items() if name != target]
        if not features:
            raise table.fault(f": expected a column beside {target} to make features of; all are ignored.")
        self._parts: list[_Number | _Category] = [_fit(table, column, rows_N, standardizes) for column in features]
        column = table.columns[target]
        names = tuple(name for part in self._parts for name in part.names)
        self._target: _Number | None = None
        if column.kind == "number":
            self._target = _fit_number(table, column, rows_N, standardizes)
            mean, scale = self._target.mean, self._target.scale
            self.encoding = Encoding(feature_names=names, target=target, target_mean=mean, target_scale=scale)
        else:
            # All the classes of the table, not of its training rows alone: a label needs a number to be wrong about.
            self.encoding = Encoding(feature_names=names, target=target, classes=_in_order(column.categories))

    def encode(self, table: Table, rows_N: Tensor) -> TableData:
        """The rows of ``table`` at the places ``rows_N``.

        Raises:
            SettingError: for a class that the table it was fitted to does not have, and a number too large for float32.
        """
        features_NF = torch.cat([part.encode(table, rows_N) for part in self._parts], dim=1)
        column = table.columns[self.encoding.target]
        if self._target is not None:
            target_N = self._target.encode(table, rows_N)[:, 0]
            return TableData({"features": features_NF, "target": target_N}, self.encoding)
        label = {name: number for number, name in enumerate(self.encoding.classes)}
        for name, code in column.categories.items():
            if name not in label:
                row = table.rows[column.codes.index(code)]
                expected = f"a class that the training table has: {', '.join(label)}"
                where = f", row {row}, column {column.name}={name!r}"
                raise table.fault(f"{where}: expected {expected}.{did_you_mean(name, label)}")
        labels = torch.tensor([label[name] for name in column.categories])
        return TableData({"features": features_NF, "label": labels[torch.tensor(column.codes)[rows_N]]}, self.encoding)


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
        return _Number(column.name, values_N[0].item(), 1.0)  # to become zero, which rounding might not leave
    mean, scale = values_N.mean().item(), values_N.std(correction=0).item()
    if not math.isfinite(mean) or not math.isfinite(scale):
        largest = f"its largest number is {values_N.abs().max():g}"
        problem = f"its standard deviation is not finite, {largest}; expected smaller numbers"
        raise table.fault(f", column {column.name}: {problem}; {table.without(column.name)}.")
    return _Number(column.name, mean, scale or 1.0)  # numbers may be too small to be squared


def _in_order(categories: Sequence[str] | dict[str, int]) -> tuple[str, ...]:
    """By value where all are numbers, so that 10 comes after 9; else as texts."""
    numbers = {name: as_number(name) for name in categories}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(categories, key=lambda name: (numbers[name], name)))
    return tuple(sorted(categories))
