"""`compare_samples`: checks that the joined micro-batches of each step contain the samples of the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loopwright.experiment.verify.equality import Difference, Leaves, first_difference, is_same


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Result of a comparison of samples.

    Attributes:
        num_steps: number of steps from the start that can be compared. In later steps, the two runs read different
            samples.
        difference: first difference between samples; None if all compared samples are equal.
        remarks: values and steps that were not compared, each with the reason.
    """

    num_steps: int
    difference: Difference | None
    remarks: Sequence[str]


def compare_samples(whole: Sequence[Sequence[Leaves]], parts: Sequence[Sequence[Leaves]]) -> Samples:
    """Compare the batch of each step with the joined micro-batches of the same step.

    A value that is equal in the whole batch and in all micro-batches does not belong to single samples, and is not
    joined. A value without one row for each sample cannot be joined, and is not compared. Examples are a tensor that is
    padded to the longest sample, and the number of samples. If only one run drops an incomplete last batch, the two
    runs read different samples in all later steps. These later steps are not compared.

    Args:
        whole: leaves of the batch of each step, as a list with one entry.
        parts: leaves of the micro-batches of each step.
    """
    uncut: set[str] = set()
    num_steps = min(len(whole), len(parts))
    for step in range(1, num_steps + 1):
        batch, cut = columns(whole[step - 1][0]), [columns(each) for each in parts[step - 1]]
        joined = {name: _join(batch.get(name), [each.get(name) for each in cut]) for name in cut[0]}
        uncut |= {name for name, value in joined.items() if value is None}
        compared = [{name: value for name, value in each.items() if name not in uncut} for each in (batch, joined)]
        found = first_difference(step, "batch", compared[0], compared[1])
        if found is not None and step > 1 and found.absolute is None:
            dropped = f"from step {step} on the two runs read different samples (drop_last), which are not compared"
            return Samples(num_steps=step - 1, difference=None, remarks=[dropped, *of_uncut(uncut)])
        if found is not None:
            return Samples(num_steps=num_steps, difference=found, remarks=of_uncut(uncut))
    return Samples(num_steps=num_steps, difference=None, remarks=of_uncut(uncut))


def of_uncut(names: set[str]) -> list[str]:
    """Return a remark on values that are not compared; empty if there are none."""
    if not names:
        return []
    why = "because they are not cut by samples (padded tensors or plain numbers)"
    return [f"{', '.join(sorted(names))}: not compared, {why}"]


def columns(leaves: Leaves) -> dict[str, Any]:
    """Return the values of a batch by name. A list of strings or numbers, one for each sample, is one value."""
    columns: dict[str, Any] = {}
    for name, value in leaves.items():
        stem, _, last = name.rpartition(".")
        if last.isdecimal() and not isinstance(value, Tensor):
            columns.setdefault(stem, []).append(value)
        else:
            columns[name] = value
    return columns


def _join(batch: Any, values: Sequence[Any]) -> Any:
    """Join the values of several micro-batches into one value. Return None if the values cannot be joined.

    If every value is equal to ``batch``, the value in the whole batch, return one of the values.
    """
    if all(isinstance(value, list) for value in values):
        return [item for value in values for item in value]
    if all(is_same(batch, value) for value in values):
        return values[0]
    tensors = [value for value in values if isinstance(value, Tensor) and value.ndim]
    if not tensors or len({value.shape[1:] for value in [*tensors, batch] if isinstance(value, Tensor)}) > 1:
        return None
    return torch.cat(tensors)
