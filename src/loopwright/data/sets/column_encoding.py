"""`NumberEncoding` and `CategoryEncoding`, which convert the cells of one table column to tensors.

Shape suffixes: N rows, F features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy
import torch
from torch import Tensor

from loopwright.data.sets.table import Column, Table
from loopwright.data.sets.table_cells import as_number
from loopwright.data.sets.table_faults import Fault, Kind
from loopwright.errors import did_you_mean, refuse, refuse_type

# Largest number of categories in a column. A column with more distinct strings contains names or notes, not categories.
# Each string would become a feature.
_MAX_CATEGORIES = 256


@dataclass(frozen=True, slots=True)
class NumberEncoding:
    """Encodes a column of numbers as one feature, ``(number - mean) / deviation``.

    Attributes:
        name: name of the column.
        mean: mean of the training rows; 0 if numbers are not standardised.
        deviation: standard deviation of the training rows; 1 if numbers are not standardised or are all equal.
        fill: number that replaces an empty cell: the median of the training rows. None: empty cells are refused.
    """

    kind: ClassVar[Kind] = "number"

    name: str
    mean: float
    deviation: float
    fill: float | None = None

    @property
    def feature_names(self) -> list[str]:
        """Name of the feature: the name of the column."""
        return [self.name]

    @property
    def description(self) -> str:
        """Kind of the column, for the plan."""
        return "number"

    @property
    def unit(self) -> str:
        """Unit of the encoded numbers. A model that was trained with these numbers predicts them in this unit."""
        if (self.mean, self.deviation) == (0, 1):
            return self.name
        return f"standard deviations of {self.name} (1 = {self.deviation:.4g})"

    def encode(self, table: Table, rows_N: Tensor) -> Tensor:
        """Return the feature of the rows, float32, of shape (N, 1).

        Raises:
            SettingError: for a number too large for float32.
        """
        values_N = _filled(torch.tensor(table.columns[self.name].numbers, dtype=torch.float64)[rows_N], self.fill)
        encoded_N = ((values_N - self.mean) / self.deviation).float()
        is_lost_N = ~encoded_N.isfinite()
        if is_lost_N.any():
            where = f", row {table.rows[int(rows_N[is_lost_N][0])]}, column {self.name}={values_N[is_lost_N][0]:g}"
            problem = f"{where}: is too large; expected a number in the range of float32"
            raise table.refused([table.unusable(problem, self.name)])
        return encoded_N[:, None]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of this column in ``data.json``."""
        found = {"name": self.name, "kind": self.kind, "mean": self.mean, "deviation": self.deviation}
        return found if self.fill is None else {**found, "fill": self.fill}


@dataclass(frozen=True, slots=True)
class CategoryEncoding:
    """Encodes a column of categories.

    A feature column becomes one 0/1 feature for each category. Each cell of a target column becomes the index of its
    category.

    Attributes:
        name: name of the column.
        categories: known categories in order. For a target, these are the classes.
        fill: category that replaces an empty cell: the category "" if the training rows have empty cells; otherwise the
            most frequent category in the training rows. None: empty cells are not replaced.
    """

    kind: ClassVar[Kind] = "category"

    name: str
    categories: tuple[str, ...]
    fill: str | None = None

    @property
    def feature_names(self) -> list[str]:
        """Names of the features, such as ``city=Rome``."""
        return [f"{self.name}={category}" for category in self.categories]

    @property
    def description(self) -> str:
        """Kind of the column and number of categories, for the plan."""
        return f"{len(self.categories):,} categor{'y' if len(self.categories) == 1 else 'ies'}"

    def encode(self, table: Table, rows_N: Tensor) -> Tensor:
        """Return a 0/1 feature for each category, float32, of shape (N, F). All are 0 for an unknown category."""
        column = table.columns[self.name]
        place = {category: number for number, category in enumerate(self.categories)}
        num_known = len(place)
        if self.fill is not None:
            place.setdefault("", place[self.fill])
        places = torch.tensor([place.get(category, num_known) for category in column.categories])
        chosen_N = places[torch.tensor(column.codes)[rows_N]]
        return (chosen_N[:, None] == torch.arange(num_known)).float()

    def labels(self, table: Table, rows_N: Tensor) -> Tensor:
        """Return the index of the category of each row, int64, of shape (N,).

        Raises:
            SettingError: for a category that is not known.
        """
        column = table.columns[self.name]
        label = {name: number for number, name in enumerate(self.categories)}
        for name, code in column.categories.items():
            if name not in label:
                row = table.rows[column.codes.index(code)]
                expected = f"one of the classes in the training table: {', '.join(label)}"
                where = f", row {row}, column {column.name}={name!r}"
                raise table.error(f"{where}: expected {expected}.{did_you_mean(name, label)}")
        labels = torch.tensor([label[name] for name in column.categories])
        return labels[torch.tensor(column.codes)[rows_N]]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of a feature column in ``data.json``. A target has ``classes`` instead of ``categories``."""
        found = {"name": self.name, "kind": self.kind, "categories": list(self.categories)}
        return found if self.fill is None else {**found, "fill": self.fill}


ColumnEncoding = NumberEncoding | CategoryEncoding


def fit_feature(table: Table, column: Column, rows_N: Tensor, *, standardizes: bool) -> ColumnEncoding | Fault:
    """Return the encoding of a feature column. The training rows ``rows_N`` determine it.

    Returns:
        The encoding. If the column has too many categories, or `fit_number` returns a fault: the fault.
    """
    if column.kind == "number":
        return fit_number(table, column, rows_N, standardizes=standardizes)
    codes_N = torch.tensor(column.codes)[rows_N]
    counts = torch.bincount(codes_N, minlength=len(column.categories)).tolist()
    categories = in_order([name for name, code in column.categories.items() if counts[code]])
    if len(categories) > _MAX_CATEGORIES:
        expected = f"expected at most {_MAX_CATEGORIES} categories, found {len(categories):,}"
        return table.unusable(f", column {column.name}: {expected}", column.name)
    if not table.fills:
        return CategoryEncoding(column.name, categories)
    most_frequent = max(categories, key=lambda name: counts[column.categories[name]])
    return CategoryEncoding(column.name, categories, "" if "" in categories else most_frequent)


def fit_number(table: Table, column: Column, rows_N: Tensor, *, standardizes: bool) -> NumberEncoding | Fault:
    """Return the encoding of a column of numbers. The training rows ``rows_N`` determine it.

    Returns:
        The encoding. A fault if empty cells are filled and all training rows are empty, or if numbers are standardised
        and their mean or standard deviation is not finite.
    """
    values_N, fill = torch.tensor(column.numbers, dtype=torch.float64)[rows_N], None
    if table.fills and column.name != table.target:
        present = values_N[~values_N.isnan()]
        if not len(present):
            return table.unusable(f", column {column.name}: is empty in all training rows", column.name)
        fill = float(numpy.median(present.numpy()))
        values_N = _filled(values_N, fill)
    if not standardizes:
        return NumberEncoding(column.name, 0.0, 1.0, fill)
    if values_N.min() == values_N.max():
        return NumberEncoding(column.name, values_N[0].item(), 1.0, fill)  # All encoded values are then exactly 0.
    mean, deviation = values_N.mean().item(), values_N.std(correction=0).item()
    if not math.isfinite(mean) or not math.isfinite(deviation):
        largest = f"its largest number is {values_N.abs().max():g}"
        problem = f"its standard deviation is not finite ({largest}); expected smaller numbers"
        return table.unusable(f", column {column.name}: {problem}", column.name)
    # The deviation is 0 if the squares of small numbers underflow.
    return NumberEncoding(column.name, mean, deviation or 1.0, fill)


def _filled(values_N: Tensor, fill: float | None) -> Tensor:
    return values_N if fill is None else values_N.nan_to_num(fill)


def in_order(categories: Iterable[str]) -> tuple[str, ...]:
    """Sort categories by value if all categories are numbers (9 before 10), otherwise as strings."""
    numbers = {name: as_number(name) for name in categories}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(numbers, key=lambda name: (numbers[name], name)))
    return tuple(sorted(numbers))


def read_column(path: str, found: Any, categories: str = "categories") -> ColumnEncoding | str:
    """Return the encoding in an entry of ``data.json``, or the name of an ignored column.

    Args:
        path: path of the entry in the file, for messages.
        found: entry, of any type.
        categories: key of the list of categories in the entry.

    Raises:
        SettingError: if the entry does not have the form that `to_json` returns. The message contains the path of the
            invalid value.
    """
    if not isinstance(found, Mapping):
        raise refuse_type(path, found, "a mapping with name and kind")
    name, kind = found.get("name"), found.get("kind")
    if not isinstance(name, str):
        raise refuse_type(f"{path}.name", name, "the name of a column")
    if kind == "ignore":
        return name
    if kind == "number":
        mean, deviation = (_number(f"{path}.{key}", found.get(key)) for key in ("mean", "deviation"))
        if deviation <= 0:
            raise refuse(f"{path}.deviation", deviation, "a number above 0")
        fill = None if found.get("fill") is None else _number(f"{path}.fill", found["fill"])
        return NumberEncoding(name, mean, deviation, fill)
    if kind != "category":
        raise refuse(f"{path}.kind", kind, "number, category or ignore")
    known = found.get(categories)
    if not isinstance(known, list) or not all(isinstance(each, str) for each in known) or len(set(known)) < len(known):
        raise refuse_type(f"{path}.{categories}", known, "a list of different strings")
    if found.get("fill") is not None and found["fill"] not in known:
        raise refuse(f"{path}.fill", found["fill"], f"one of the {categories}")
    return CategoryEncoding(name, tuple(known), found.get("fill"))


def _number(path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refuse_type(path, value, "a finite number")
    return float(value)
