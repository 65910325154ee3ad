"""`Agreement`: sums the number of items of a step over the processes, and exchanges requests to stop.

Every process calls the same methods in the same order, because each sum needs all processes::

    before the last backward of a step: begin     # starts the sum, which runs during the backward
    after this backward:                end       # waits for the sum
    in a validation, at every 16th batch: look
"""

from __future__ import annotations

import torch
from torch import Tensor

from loopwright.engine.stopping import Stopping
from loopwright.protocols import Pending, Ranks

_BATCHES_BETWEEN_LOOKS = 16


class Agreement:
    """Sums values over the processes that train together.

    Three numbers are summed on the CPU: the number of items, the number of processes whose number of items is on an
    accelerator, and the number of processes with a request to stop.

    Args:
        ranks: processes that train together.
        stopping: object that receives requests to stop.
        device: device of the model.
        dtype: widest floating-point dtype for sums on this device.
    """

    def __init__(self, ranks: Ranks, stopping: Stopping, device: torch.device, dtype: torch.dtype) -> None:
        self._ranks = ranks
        self._stopping = stopping
        self._device = device
        self._dtype = dtype
        self._own: Tensor | None = None
        self._sums = torch.zeros(3, dtype=torch.float64)
        self._pending: Pending | None = None

    def begin(self, num_items: float | Tensor) -> None:
        """Start the sums over the processes, which contain the number of items and the requests to stop.

        Args:
            num_items: number of items in the micro-batches of the step in this process.
        """
        self._own = num_items if isinstance(num_items, Tensor) else None
        on_host = 0.0 if isinstance(num_items, Tensor) else num_items
        self._sums = torch.tensor([on_host, self._own is not None, self._stopping.is_wanted], dtype=torch.float64)
        self._pending = self._ranks.add(self._sums)

    def end(self) -> float | Tensor:
        """Wait for the sums. Return the number of items of all processes, divided by the number of processes.

        The strategy averages the gradients over the processes, so this number is the divisor of the gradients. The
        number is a tensor if the number of items of any process is on an accelerator.
        """
        assert self._pending is not None, "end follows begin"
        self._pending.wait()
        self._pending = None
        num_items, num_on_device, num_stopping = map(float, self._sums.tolist())
        if num_stopping:
            self._stopping.is_asked = True
        world_size = self._ranks.world_size
        if not num_on_device:
            return num_items / world_size
        total = torch.zeros((), dtype=self._dtype, device=self._device)
        if self._own is not None:
            total += self._own
        self._ranks.add(total).wait()
        return (total + num_items) / world_size

    def total(self, num_items: float | Tensor) -> float:
        """Return the sum of ``num_items`` over the processes. Wait for the other processes and for the device."""
        self.begin(num_items)
        return float(self.end()) * self._ranks.world_size

    def look(self, batch_idx: int) -> None:
        """Exchange requests to stop at every 16th batch of a validation. Called after each batch."""
        if batch_idx % _BATCHES_BETWEEN_LOOKS == _BATCHES_BETWEEN_LOOKS - 1:
            self.begin(0)
            self.end()
