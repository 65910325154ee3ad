"""`TrainMean`: averages the training metrics since the last log step, weighted by the number of items.

::

    for each micro-batch:
        totals[key] += num_items * value    # on the device of the value
        num_items[key] += num_items
    at a log step:
        means = totals / num_items          # waits for the device, like a save of a checkpoint
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy
import torch
from torch import Tensor

from loopwright.engine.gathering import gather_values
from loopwright.engine.weighting import Weigher, not_real, num_samples, read_back
from loopwright.protocols import BatchSource, Ranks

_NUMBERS = (float, int, bool, numpy.float32, numpy.float64)  # `Weigher.metrics` converts other classes of numbers


class TrainSums:
    """Sums of the training metrics since the last log step, in this process.

    Args:
        ranks: processes whose sums are added for a mean; None: this process trains alone.

    Attributes:
        totals: sum of value times number of items, by name of the metric. The sum of tensors is a tensor on their
            device, and the sum of Python numbers is a Python number.
        num_items: number of items in the micro-batches that had the metric, by name of the metric. It is a tensor only
            if the model counts the items on an accelerator.
    """

    def __init__(self, ranks: Ranks | None = None) -> None:
        self._ranks = ranks
        self.totals: dict[str, Tensor | float] = {}
        self.num_items: dict[str, Tensor | float] = {}

    def clear(self) -> None:
        """Remove all sums."""
        self.totals.clear()
        self.num_items.clear()

    def take_means(self) -> dict[str, float]:
        """Return the means, without metrics of 0 items, and remove all sums. Waits for the device."""
        sums = self.state_dict()
        if self._ranks is not None and self._ranks.world_size > 1:
            sums = add_sums(gather_values(self._ranks, sums))
        means = {name: total / count for name, (total, count) in sums.items() if count}
        self.clear()
        return means

    def state_dict(self) -> dict[str, list[float]]:
        """Return [total, number of items] of each metric, by name. Waits for the device."""
        totals, counts = read_back(self.totals), read_back(self.num_items)
        return {name: [total, counts[name]] for name, total in totals.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state from `state_dict`.

        Raises:
            ValueError: if a value of the state is invalid.
        """
        for name, pair in state.items():
            is_pair = isinstance(name, str) and isinstance(pair, list) and [type(each) for each in pair] == [float] * 2
            if not is_pair or not 0 <= pair[1] < math.inf:
                raise ValueError(f"train_sums.{name}: expected a sum and a number of items")
        self.totals = {name: total for name, (total, _) in state.items()}
        self.num_items = {name: count for name, (_, count) in state.items()}


def add_sums(states: Iterable[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """Add [total, number of items] of each metric over the results of `TrainSums.state_dict` of several processes."""
    added: dict[str, list[float]] = {}
    for state in states:
        for name, (total, count) in state.items():
            before = added.get(name, [0.0, 0.0])
            added[name] = [before[0] + total, before[1] + count]
    return added


class TrainMean:
    """Adds the metrics of each training micro-batch to a `TrainSums`. No value is read from the device.

    For a micro-batch with one scalar tensor, `add` makes at most 5 function calls. Each further scalar needs 2 calls.
    The loop reads entries by key and compares types with ``is``, because ``items()`` and ``isinstance`` are calls too.

    Args:
        sums: sums to which the metrics are added.
        source: source of the training micro-batches.
        weigher: object that selects the metrics from the outputs that are neither scalar tensors nor plain numbers.
        dtype: dtype of the sums on the device.
    """

    def __init__(self, sums: TrainSums, source: BatchSource, weigher: Weigher, dtype: torch.dtype) -> None:
        self._sums = sums
        self._source = source
        self._batch_size = source.facts.batch_size
        self._weigher = weigher
        self._dtype = dtype

    def add(self, outputs: Mapping[str, Any], batch: Any, index: int, weight: float | Tensor | None) -> None:
        """Add the metrics of a micro-batch. A micro-batch without items adds nothing, even if its loss is NaN.

        Args:
            outputs: outputs of the model for this micro-batch.
            batch: the micro-batch.
            index: index of the micro-batch in its pass.
            weight: number of items; None: the number of samples, or 1 if the number of samples is unknown.

        Raises:
            TypeError: if a metric is complex. The message names the metric.
        """
        if weight is None:
            weight = self._source.num_samples(index)  # like `Weigher.num_samples`, but without an extra function call
            if weight is None:
                weight = num_samples(batch, self._batch_size)
        number: float = 1
        on_device: Tensor | None = None
        is_counted: Tensor | None = None
        if type(weight) is int or type(weight) is float:
            if not weight:
                return
            number = weight
        elif weight is not None:
            on_device = torch.as_tensor(weight, dtype=self._dtype)
            is_counted = on_device > 0
        totals, counts, per_sample = self._sums.totals, self._sums.num_items, self._weigher.per_sample
        others: dict[str, Any] = {}
        for name in outputs:
            value = outputs[name]
            if name == "num_items":
                continue
            is_scalar, is_number = type(value) is Tensor and not value.ndim, type(value) in _NUMBERS
            if type(name) is str and name not in totals and (is_scalar or is_number):
                totals[name], counts[name] = 0.0, 0
            if type(name) is not str:
                others[name] = value
            elif is_scalar:
                total = totals[name]
                device = value.device if on_device is None else on_device.device
                if type(total) is not Tensor or total.device != device:
                    total = totals[name] = self._on_device(name, value, device)
                if on_device is None or is_counted is None:
                    total.add_(value.detach(), alpha=number)
                    counts[name] += number
                else:  # a mean over 0 items may be NaN, and NaN times 0 is NaN
                    total.add_(torch.where(is_counted, value.detach() * on_device, 0.0))
                    counts[name] += on_device
            elif on_device is None and is_number:
                totals[name] += float(value) * number
                counts[name] += number
            elif type(value) is not Tensor or (value.ndim == 1 and (value.shape[0] == 1 or name not in per_sample)):
                others[name] = value
        if others:
            found = self._weigher.metrics(others, batch, index)
            plain = {str(name): _plain(value, on_device) for name, value in found.items()}
            self.add(plain, batch, index, number if on_device is None else on_device)

    def _on_device(self, name: str, value: Tensor, device: torch.device) -> Tensor:
        """Return the total of the metric ``name`` as a tensor on ``device``."""
        if value.is_complex():
            raise not_real(f"train/{name}", value)
        total = self._sums.totals[name]
        if isinstance(total, Tensor):
            return total.to(device)
        return torch.full((), total, dtype=self._dtype, device=device)


def _plain(value: Tensor | float, on_device: Tensor | None) -> Tensor | float:
    """Convert a metric to the class `Tensor` or to a number that `TrainMean.add` can add without `Weigher.metrics`.

    Args:
        value: metric, such as a tensor of a subclass of `Tensor`.
        on_device: number of items as a tensor, or None. If ``on_device`` is a tensor, a number in ``value`` becomes a
            tensor with the dtype and the device of ``on_device``.
    """
    if isinstance(value, Tensor):
        return value.as_subclass(Tensor)
    return value if on_device is None else torch.full((), value, dtype=on_device.dtype, device=on_device.device)
