"""`parameter_table`: formats the parameters of a model as a table with a limited number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn.parameter import is_lazy


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a parameter, or all parameters of a module.

    Attributes:
        name: name of the parameter or the module.
        shape: shape of the parameter as text, or the number of parameter tensors in the module.
        num_parameters: number of scalar parameters. A tensor of unknown shape counts as 0.
        trained: whether the optimizer trains the parameters; "partly" if the optimizer trains only some of them.
    """

    name: str
    shape: str
    num_parameters: int
    trained: Literal["yes", "no", "partly"]

    @classmethod
    def of(cls, name: str, parameter: Tensor, is_trained: bool) -> Row:
        """Return the row of one parameter."""
        trained: Literal["yes", "no"] = "yes" if is_trained else "no"
        if is_lazy(parameter):
            return cls(name, "unknown before the first batch", 0, trained)
        return cls(name, str(list(parameter.shape)), parameter.numel(), trained)


def parameter_table(rows: Sequence[Row], max_rows: int) -> str:
    """Return a table with a row for each parameter tensor, and a row with the total.

    If there are more than ``max_rows`` parameter tensors, tensors whose names have the same first components share a
    row. The number of compared components is the largest number that gives at most ``max_rows`` rows. If one component
    still gives more rows, the last rows are joined into a row named ``others``.
    """
    depth = max((row.name.count(".") + 1 for row in rows), default=1)
    groups = _grouped(rows, depth)
    while len(groups) > max_rows and depth > 1:
        depth -= 1
        groups = _grouped(rows, depth)
    if len(groups) > max_rows:
        others = [row for name in [*groups][max_rows - 1 :] for row in groups.pop(name)]
        groups["others"] = others
    shown = [*(_joined(name, each) for name, each in groups.items()), _joined("total", rows)]
    cells = [("parameter", "shape", "parameters", "trained")]
    cells += [(row.name, row.shape, f"{row.num_parameters:,}", row.trained) for row in shown]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        f"{name:{widths[0]}}  {shape:{widths[1]}}  {number:>{widths[2]}}  {trained}"
        for name, shape, number, trained in cells
    )


def _grouped(rows: Sequence[Row], depth: int) -> dict[str, list[Row]]:
    """Group the rows by the first ``depth`` components of their names."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(".".join(row.name.split(".")[:depth]), []).append(row)
    return groups


def _joined(name: str, rows: Sequence[Row]) -> Row:
    """Join several rows into one row. A single row that already has this name is returned unchanged."""
    if len(rows) == 1 and rows[0].name == name:
        return rows[0]
    trained = {row.trained for row in rows}
    return Row(
        name,
        f"{len(rows)} tensor{'' if len(rows) == 1 else 's'}",
        sum(row.num_parameters for row in rows),
        "partly" if len(trained) > 1 else trained.pop() if trained else "no",
    )
