"""Functions and classes that read the outputs of a model, count the items of a batch, and average over items."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from loopwright.engine.gathering import gather_values
from loopwright.errors import DataError, nearest, on_one_line
from loopwright.protocols import BatchSource, Ranks

_log = logging.getLogger("loopwright")


def as_outputs(returned: Any, needs_loss: bool = True) -> dict[str, Any]:
    """Return the outputs of a model as a mapping.

    Args:
        returned: object that the model returned: the loss, or a mapping.
        needs_loss: whether a mapping without ``loss`` is refused.

    Raises:
        TypeError: if the model returned neither a tensor nor a mapping, if the loss is not a scalar tensor, or if the
            loss is missing and ``needs_loss`` is True.
    """
    if type(returned) is Tensor and not returned.ndim:  # the fast path, without a function call
        return {"loss": returned}
    outputs = returned if type(returned) is dict else {"loss": returned} if isinstance(returned, Tensor) else None
    if outputs is None:
        if not isinstance(returned, Mapping):
            given = "None" if returned is None else f"an object of class {type(returned).__name__}"
            problem = 'expected the loss as a scalar tensor, or a mapping that contains it, such as {"loss": loss}.'
            raise TypeError(f"The model returned {given}: {problem}")
        outputs = dict(returned)
    if "loss" not in outputs:
        if needs_loss:
            raise _without_loss(outputs)
        return outputs
    loss = outputs["loss"]
    if type(loss) is not Tensor and not isinstance(loss, Tensor):
        raise _without_loss(outputs)
    if loss.ndim:
        remedy = "take its mean"
        if isinstance(returned, Tensor):
            remedy += "; for outputs such as logits, use loopwright.models.Supervised(net, loss)"
        raise TypeError(f"The model returned a loss of shape {tuple(loss.shape)}: expected a scalar; {remedy}.")
    return outputs


def given_items(outputs: Mapping[str, Any]) -> float | Tensor:
    """Return the output ``num_items`` of a model. The loss of a micro-batch is the mean over ``num_items`` items.

    A tensor on the host is converted to a number. The value of a tensor on an accelerator is not read, because the
    host would have to wait for the device. Such a tensor is detached and returned.

    Raises:
        TypeError: if ``num_items`` is neither an integer nor a scalar tensor, or if its value is negative or NaN. The
            value of a tensor on an accelerator is not checked.
    """
    given: Any = outputs["num_items"]
    if type(given) is int and given >= 0:  # the general test below makes 6 function calls
        return given
    if isinstance(given, Tensor) and not given.ndim:
        if given.device.type != "cpu":
            return given.detach()
        number = given.item()
        if number >= 0:
            return number
    elif isinstance(given, numbers.Integral) and not isinstance(given, bool) and int(given) >= 0:
        return int(given)
    shown = f"a tensor of shape {tuple(given.shape)}" if isinstance(given, Tensor) and given.ndim else repr(given)
    expected = "expected an integer or a scalar tensor, of at least 0"
    raise TypeError(f"The model returned num_items={shown}: {expected}.")


def num_samples(batch: Any, batch_size: int | None) -> int | None:
    """Return the number of samples in a batch, which is the length of the first dimension of its tensors.

    Return None if the batch has no tensors, if the lengths differ, or if the length is above ``batch_size``. The batch
    is a tensor, or its tensors are the entries of a mapping, list, tuple or dataclass. Scalar tensors, and tensors in
    nested containers, are ignored.

    Args:
        batch: batch of a dataloader.
        batch_size: largest number of samples in a batch; None: unknown.
    """
    if type(batch) is tuple or type(batch) is list:  # most batches; this branch calls no function
        parts: Iterable[Any] = batch
    elif is_dataclass(batch) and not isinstance(batch, type):
        parts = [getattr(batch, field.name) for field in fields(batch)]
    else:
        parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else [batch]
    length: int | None = None
    for part in parts:
        if (type(part) is Tensor or isinstance(part, Tensor)) and part.ndim:
            if length is not None and part.shape[0] != length:
                return None
            length = part.shape[0]
    return length if batch_size is None or length is None or length <= batch_size else None


class Weigher:
    """Counts the items in each batch of a source, and selects the metrics from the outputs of a model.

    Args:
        source: source of the batches.
        warned: names of outputs about which a warning was already logged. `metrics` adds names.

    Attributes:
        per_sample: names of outputs that had shape (n,) with n != 1 in an earlier batch.
    """

    def __init__(self, source: BatchSource, warned: set[str]) -> None:
        self._source = source
        self._warned = warned
        self.per_sample: set[str] = set()
        self._batch_size = source.facts.batch_size

    def __call__(self, outputs: Mapping[str, Any], batch: Any, index: int) -> float | Tensor | None:
        """Return the output ``num_items``. If it is missing, return the number of samples; None: unknown.

        Args:
            outputs: outputs of the model for this batch.
            batch: the batch.
            index: index of the batch in its pass.
        """
        if outputs.get("num_items") is not None:
            return given_items(outputs)
        return self.num_samples(batch, index)

    def num_samples(self, batch: Any, index: int) -> int | None:
        """Return the number of samples in a batch; None: unknown.

        If the source does not report the number of samples, the function `num_samples` counts them.

        Args:
            batch: the batch.
            index: index of the batch in its pass.
        """
        num_read = self._source.num_samples(index)
        return num_samples(batch, self._batch_size) if num_read is None else num_read

    def metrics(self, outputs: Mapping[str, Any], batch: Any, index: int) -> dict[str, Tensor | float]:
        """Return the metrics in ``outputs``: numbers, and tensors and arrays of shape () or (1,), except ``num_items``.

        If the batch has one sample, an output of shape (1,) is not a metric, because it may have one value per sample.
        A warning is logged once for each name of such an output. No warning is logged if the batch size of the source
        is above 1, or if the name is in `per_sample`.

        Args:
            outputs: outputs of the model for this batch.
            batch: the batch.
            index: index of the batch in its pass.
        """
        found: dict[str, Tensor | float] = {}
        for name, value in outputs.items():
            if name == "num_items":
                continue
            if isinstance(value, Tensor | numpy.ndarray):
                if value.shape == (1,) and self.num_samples(batch, index) == 1:
                    self._warn_of(name)
                elif len(value.shape) == 1 and value.shape != (1,):
                    self.per_sample.add(name)
                elif value.shape in ((), (1,)) and (isinstance(value, Tensor) or value.dtype.kind in "biuf"):
                    found[name] = value.detach().reshape(()) if isinstance(value, Tensor) else float(value.reshape(()))
            elif isinstance(value, numbers.Real):
                found[name] = float(value)
        return found

    def _warn_of(self, name: str) -> None:
        is_last = self._batch_size is not None and self._batch_size > 1  # one sample left at the end of a pass
        if not is_last and name not in self._warned | self.per_sample:
            self._warned.add(name)
            _log.warning(
                "The model returned %s of shape (1,) for a batch of one sample: it is not logged, because it may be a "
                "value for each sample; to log it, return a scalar.",
                name,
            )

    def known(self, outputs: Mapping[str, Any], batch: Any, index: int) -> float | Tensor:
        """Return the number of items in a batch, like `__call__`.

        Raises:
            DataError: if the number of items is unknown.
        """
        weight = self(outputs, batch, index)
        if weight is None:
            raise DataError(
                "num_items: the number of samples in the batch is unknown: expected tensors with the same first "
                "dimension; return num_items from the model, together with the loss."
            )
        return weight


def read_back(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Convert the values to Python floats. Waits for the device.

    Raises:
        TypeError: if a value is neither a number nor a real scalar tensor. The message names the value.
    """
    on_device = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    for name, value in on_device.items():
        if value.ndim or value.is_complex():
            raise not_real(name, value)
    read: dict[str, float] = {}
    if on_device:
        wide = [value.to(_wide_dtype(value)) for value in on_device.values()]
        read = dict(zip(on_device, torch.stack(wide).tolist(), strict=True))
    return {name: read[name] if name in read else _number(name, value) for name, value in values.items()}


def _wide_dtype(value: Tensor) -> torch.dtype:
    """Return the dtype to which ``value`` is converted for reading: float64, or float32 if the device lacks float64."""
    lacks_float64 = value.device.type in ("mps", "xpu") and value.dtype != torch.float64
    return torch.float32 if lacks_float64 else torch.float64


def not_real(name: str, value: Tensor) -> TypeError:
    """Return the error for a tensor that cannot be logged because it is complex or no scalar."""
    given = f"a tensor of shape {tuple(value.shape)}, {value.dtype}"
    return TypeError(f"{name} is {given}: expected a real scalar to be logged.")


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, str):  # float("3") is 3.0, but a string must be refused
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise TypeError(f"{name}={on_one_line(repr(value), 80)}: expected a number or a scalar tensor to be logged.")


class WeightedMean:
    """Averages metrics over batches, weighted by the number of items in each batch. Only `result` waits for the device.

    Args:
        dtype: dtype of the sums on the device.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._sums: dict[str, Tensor | float] = {}
        self._weights: dict[str, Tensor | float] = {}

    def add(self, values: Mapping[str, Tensor | float], weight: float | Tensor) -> None:
        """Add the metrics of a batch with ``weight`` items. The metrics of a batch without items are ignored."""
        if not isinstance(weight, Tensor) and not weight:
            return
        for name, value in values.items():
            wide = value.to(self._dtype) if isinstance(value, Tensor) else value
            # The mean of a batch with 0 items may be NaN. NaN times 0 is NaN, so 0.0 is added instead.
            weighed = torch.where(weight > 0, wide * weight, 0.0) if isinstance(weight, Tensor) else wide * weight
            self._sums[name] = self._sums.get(name, 0.0) + weighed
            self._weights[name] = self._weights.get(name, 0) + weight

    def result(self, ranks: Ranks | None = None) -> dict[str, float]:
        """Return the average of each metric over the batches of all processes; without ``ranks``, of this process.

        A metric whose batches have 0 items in total is NaN, if the numbers of items are tensors. If they are Python
        numbers, the metric is left out.
        """
        sums, weights = read_back(self._sums), read_back(self._weights)
        if ranks is not None and ranks.world_size > 1:
            gathered = gather_values(ranks, [sums, weights])
            sums, weights = ({}, {})
            for own_sums, own_weights in gathered:
                for name, value in own_sums.items():
                    sums[name] = sums.get(name, 0.0) + value
                    weights[name] = weights.get(name, 0.0) + own_weights[name]
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
    could_be = [str(name) for name, value in outputs.items() if isinstance(value, Tensor) and not value.ndim]
    near = nearest("loss", could_be)
    remedy = f"rename {near} to loss" if near else "compute the loss in the model, and return it as loss"
    names = ", ".join(str(name) for name in outputs)
    return TypeError(f"The model returned a mapping without loss, with the keys {names}: {expected}; {remedy}.")
