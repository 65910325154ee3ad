"""Functions that read the outputs of a model, and `WeightedMean`, which averages metrics over items."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from loopwright.errors import DataError, nearest


def as_outputs(returned: Any, *, needs_loss: bool = True) -> dict[str, Any]:
    """Return the outputs of a model as a mapping, with ``loss`` if one is needed.

    Raises:
        TypeError: if the model returned neither a scalar tensor nor a mapping with a scalar tensor ``loss``.
    """
    outputs = returned if type(returned) is dict else {"loss": returned} if isinstance(returned, Tensor) else None
    if outputs is None:
        if not isinstance(returned, Mapping):
            given = "None" if returned is None else f"an object of class {type(returned).__name__}"
            problem = 'expected its loss, a scalar tensor, or a mapping with it: {"loss": loss}.'
            raise TypeError(f"The model returned {given}: {problem}")
        outputs = dict(returned)
    if not needs_loss and "loss" not in outputs:
        return outputs
    loss = outputs.get("loss")
    if not isinstance(loss, Tensor):
        raise _without_loss(outputs)
    if loss.ndim:
        raise TypeError(f"The model returned a loss of shape {tuple(loss.shape)}: expected a scalar; take its mean.")
    return outputs


def num_items(outputs: Mapping[str, Any], batch: Any) -> int | Tensor:
    """Return the number of items over which the loss of a micro-batch is a mean.

    This number is the output ``num_items``, or the number of samples if the model returns no ``num_items``.

    Raises:
        TypeError: if ``num_items`` is neither an integer of at least 0 nor a scalar tensor.
        DataError: if the model returns no ``num_items``, and the batch has no tensor that shows the number of samples.
    """
    given = outputs.get("num_items")
    if given is not None:
        if isinstance(given, Tensor) and not given.ndim:
            return given.detach()
        if isinstance(given, bool) or not isinstance(given, numbers.Integral) or given < 0:
            given = f"a tensor of shape {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
            expected = "expected a whole number, 0 or more, or a scalar tensor on the device"
            raise TypeError(f"The model returned num_items={given}: {expected}.")
        return int(given)
    first = _first_tensor(batch)
    if first is None or not first.ndim:
        raise DataError(
            "num_items: the batch has no tensor whose first dimension is the number of samples; "
            "return num_items from the model, together with the loss."
        )
    return first.shape[0]


def scalars(outputs: Mapping[str, Any]) -> dict[str, Tensor | float]:
    """Return the metrics in ``outputs``: every scalar except ``num_items``."""
    return {
        name: value.detach() if isinstance(value, Tensor) else value
        for name, value in outputs.items()
        if name != "num_items" and (not value.ndim if isinstance(value, Tensor) else isinstance(value, numbers.Real))
    }


def read_back(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Return the values as Python floats. The host waits here until the device has computed them.

    Raises:
        TypeError: if a tensor is not a real scalar.
    """
    on_device = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    for name, value in on_device.items():
        if value.ndim or value.is_complex():
            given = f"a tensor of shape {tuple(value.shape)}, {value.dtype}"
            raise TypeError(f"{name} is {given}: expected a real scalar to be logged.")
    read: dict[str, float] = {}
    if on_device:
        wide = [
            value.to(torch.float64) if value.device.type != "mps" else value.float() for value in on_device.values()
        ]
        read = dict(zip(on_device, torch.stack(wide).tolist(), strict=True))
    return {name: read[name] if name in read else float(value) for name, value in values.items()}


class WeightedMean:
    """Averages metrics over batches, weighted by the number of items in each batch. Only `result` waits for the device.

    Args:
        dtype: dtype of the sums on the device.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._sums: dict[str, Tensor | float] = {}
        self._weights: dict[str, Tensor | int] = {}

    def add(self, values: Mapping[str, Tensor | float], weight: int | Tensor) -> None:
        """Add the values of a batch with ``weight`` items."""
        for name, value in values.items():
            wide = value.to(self._dtype) if isinstance(value, Tensor) else value
            # A mean over 0 items may be NaN. NaN times 0 is NaN, so 0.0 is added instead.
            if isinstance(weight, Tensor):
                weighed: Tensor | float = torch.where(weight > 0, wide * weight, 0.0)
            else:
                weighed = wide * weight if weight else 0.0
            self._sums[name] = self._sums.get(name, 0.0) + weighed
            self._weights[name] = self._weights.get(name, 0) + weight

    def result(self) -> dict[str, float]:
        """Return the averages. A metric is NaN if its batches have no items."""
        sums, weights = read_back(self._sums), read_back(self._weights)
        return {name: sums[name] / weights[name] if weights[name] else float("nan") for name in sums}


def _without_loss(outputs: Mapping[Any, Any]) -> TypeError:
    expected = "expected a scalar tensor as loss"
    if "loss" in outputs:
        loss = outputs["loss"]
        given = f"a loss of class {type(loss).__name__}"
        remedy = "; return the tensor itself, without item()" if isinstance(loss, numbers.Real) else ""
        return TypeError(f"The model returned a mapping with {given}: {expected}{remedy}.")
    if not outputs:
        return TypeError(f"The model returned an empty mapping: {expected}.")
    names = [str(name) for name in outputs]
    near = nearest("loss", names)
    remedy = f"; rename {near} to loss" if near else ""
    return TypeError(
        f"The model returned a mapping without loss, with the keys {', '.join(names)}: {expected}{remedy}."
    )


def _first_tensor(batch: Any) -> Tensor | None:
    if isinstance(batch, Tensor):
        return batch
    if is_dataclass(batch) and not isinstance(batch, type):
        batch = [getattr(batch, field.name) for field in fields(batch)]
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    for part in parts:
        found = _first_tensor(part)
        if found is not None:
            return found
    return None
