"""Batches that a model cannot take, refused in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from loopwright.errors import SettingError


def not_taken(batch: Any, expected: str) -> SettingError:
    """The error for a batch that lacks what a model takes; it names the models that take what is there."""
    if not isinstance(batch, Mapping):
        return SettingError("model", f": expected a mapping with {expected} as batch, found {type(batch).__name__}.")
    remedy = ""
    if "tokens" in batch:
        remedy = "; model=gpt takes tokens"
    elif "label" in batch or "target" in batch:
        remedy = "; model=mlp takes a label, model=mlp_regressor a target"
        if "target" in batch and "label" in expected:
            remedy += ", of which 'data.types={y: category}' makes a label if it is column y of a table"
    return SettingError("model", f": expected {expected} in a batch, found {', '.join(map(str, batch))}{remedy}.")


def check_floats(name: str, given: Tensor, weight: Tensor) -> None:
    """Refuse numbers of another type than the weights, which no precision that there is computes with.

    Raises:
        SettingError: naming both types.
    """
    if given.dtype != weight.dtype:
        raise SettingError(
            "model", f": expected {name} in {weight.dtype}, the data has {given.dtype}; convert the data."
        )
