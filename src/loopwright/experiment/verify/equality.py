"""Functions that compare nested values of two runs leaf by leaf.

`Difference` describes the first leaf that differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Leaves = Mapping[str, Any]

_MAX_DEPTH = 20  # maximum nesting depth for attributes of objects, because objects may refer to each other


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first difference between two runs.

    Attributes:
        step: step in which the difference occurred, from 1.
        kind: kind of the values that differ: "batch", "loss", "weights", "metrics", "state" or "gradient".
        name: name of the tensor or value that differs; empty if there is only one value of this kind.
        absolute: largest absolute difference between elements of the two tensors; None if it cannot be computed.
        relative: norm of the difference of the two tensors, divided by the norm of the tensor of the first run; None if
            it cannot be computed.
        values: description of the two values if ``absolute`` is None, otherwise empty.
    """

    step: int
    kind: str
    name: str
    absolute: float | None
    relative: float | None
    values: str

    def __str__(self) -> str:
        """Return a description of the difference in one line."""
        what = f"{self.kind} {self.name}".strip()
        if self.absolute is None:
            return f"step {self.step}, {what}: {self.values}"
        relative = "" if self.relative is None else f" ({self.relative:.2g} relative)"
        return f"step {self.step}, {what}: differs by at most {self.absolute:.3g}{relative}"


def leaves(tree: Any, path: str = "", depth: int = _MAX_DEPTH) -> dict[str, Any]:
    """Return the leaves of nested mappings, lists, tuples and objects by path, such as ``images.0``.

    Tensors are copied to the CPU.
    """
    if isinstance(tree, Tensor):
        return {path: tree.detach().cpu().clone()}
    if isinstance(tree, np.ndarray) and tree.dtype.kind in "biufc":
        return {path: torch.from_numpy(tree.copy())}
    if is_dataclass(tree) and not isinstance(tree, type):
        tree = {field.name: getattr(tree, field.name) for field in fields(tree)}
    if isinstance(tree, Mapping):
        children = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list | tuple):
        children = [(str(index), value) for index, value in enumerate(tree)]
    elif depth > 0 and getattr(tree, "__dict__", None) and not callable(tree):  # such as a user-defined batch
        children = [*vars(tree).items()]
    else:
        return {path: tree}
    found: dict[str, Any] = {}
    for name, value in children:
        found |= leaves(value, f"{path}.{name}" if path else name, depth - 1)
    return found


def first_difference(step: int, kind: str, ours: Leaves, theirs: Leaves) -> Difference | None:
    """Return the first difference between the leaves of two runs, or None. A missing leaf is a difference."""
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if name not in ours or name not in theirs:
            values = f"only in the {'first' if name in ours else 'second'} run"
            return Difference(step=step, kind=kind, name=name, absolute=None, relative=None, values=values)
        one, other = ours[name], theirs[name]
        if not is_same(one, other):
            return _difference(step, kind, name, one, other)
    return None


def sizes(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Return the largest absolute difference, and the norm of the difference divided by the norm of ``one``."""
    wide = torch.complex128 if one.is_complex() else torch.float64
    apart, first = one.to(wide) - other.to(wide), one.to(wide)
    if not apart.numel():
        return 0.0, 0.0
    norm = float(first.norm())
    return float(apart.abs().max()), float(apart.norm()) / norm if norm else float("inf")


def is_same(one: Any, other: Any) -> bool:
    """Return whether two leaves are equal.

    Tensors are equal if their shapes, dtypes and bytes are equal. Values of built-in types are equal if their ``repr``
    strings are equal. NaN is therefore equal to NaN. For other objects, only the classes are compared.
    """
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return torch.equal(*(each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other)))
    if type(one) is not type(other):
        return False
    is_plain = one is None or isinstance(one, bool | int | float | str | bytes | list)
    return repr(one) == repr(other) if is_plain else True


def _difference(step: int, kind: str, name: str, one: Any, other: Any) -> Difference:
    absolute = relative = None
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape == other.shape and not one.is_quantized:
            absolute, relative = sizes(one, other)
        values = "" if absolute is not None else f"{_describe(one)} in the first run, {_describe(other)} in the second"
    else:
        values = f"{one!r:.60} in the first run, {other!r:.60} in the second"
    return Difference(step=step, kind=kind, name=name, absolute=absolute, relative=relative, values=values)


def _describe(tensor: Tensor) -> str:
    return f"{'x'.join(map(str, tensor.shape)) or 'scalar'} {str(tensor.dtype).removeprefix('torch.')}"
