"""Functions that build or raise errors for batches that a model does not accept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from loopwright.errors import SettingError


def not_taken(batch: Any, expected: str) -> SettingError:
    """Build the error for a batch without the keys that a model needs. The message may suggest another model."""
    if not isinstance(batch, Mapping):
        problem = f": expected a batch that is a mapping with {expected}, found {type(batch).__name__}."
        return SettingError("model", problem)
    remedy = ""
    if "tokens" in batch:
        remedy = "; model=gpt takes tokens"
    elif "label" in batch or "target" in batch:
        remedy = "; to classify, use model=mlp; to predict a number, model=mlp_regressor"
        if "target" in batch and "label" in expected:
            remedy = "; to predict the number in target, use model=mlp_regressor; to classify the rows of a table by a "
            remedy += "column y of numbers, use 'data.types={y: category}'"
    return SettingError("model", f": expected {expected} in a batch, found {', '.join(map(str, batch))}{remedy}.")


def check_floats(name: str, given: Tensor, weight: Tensor) -> None:
    """Check that a tensor has the same dtype as the weights, because no available precision casts the data.

    Raises:
        SettingError: if the dtypes differ; the message names both dtypes.
    """
    if given.dtype != weight.dtype:
        problem = f": expected {name} in {weight.dtype}, the data has {name} in {given.dtype}; convert the data."
        raise SettingError("model", problem)
