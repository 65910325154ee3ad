"""`Scaling`: multiplies the loss by a scale for dtypes with a small range, and skips updates with gradient overflow."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from loopwright.errors import NonFiniteError

_FIRST_SCALE = 65536.0
_MAX_SKIPPED_IN_A_ROW = 20


class Scaling:
    """Multiplies the loss of each micro-batch by a scale, and skips an update whose gradients are infinite or NaN.

    The method is the loss scaling of Micikevicius et al., Mixed Precision Training (2018), section 3.2, with the
    implementation `torch.amp.GradScaler`. A skipped update halves the scale. After ``growth_every_n_steps`` consecutive
    updates without a skipped update, the scale is doubled.

    In a step of several micro-batches, the loss is multiplied by its number of items before it is scaled. If the first
    step of a run has several micro-batches, the first scale is divided by the number of items in the first micro-batch,
    rounded up to a power of two. Without this division, the gradients of the first steps would overflow.

    Args:
        device_type: type of the device in torch, such as "cuda".
        first_scale: scale of the first step; None: 65,536, divided as described above.
        growth_every_n_steps: number of consecutive updates without a skipped update after which the scale is doubled.
    """

    def __init__(self, device_type: str, first_scale: float | None = None, growth_every_n_steps: int = 2000) -> None:
        self._device_type = device_type
        self._growth = growth_every_n_steps
        self._is_first_scale_open = first_scale is None
        self._scaler = self._make(_FIRST_SCALE if first_scale is None else first_scale)
        self._num_skipped_in_a_row = 0

    def scale(self, loss: Tensor, num_items: float | Tensor | None = None) -> Tensor:
        """Return the loss times the scale. Call ``backward`` on the result.

        Args:
            loss: loss of a micro-batch.
            num_items: number of items by which the loss was multiplied; None: the loss is a mean.
        """
        if self._is_first_scale_open:
            self.choose_first_scale(1.0 if num_items is None else float(num_items))  # waits for the device, once
        return self._scaler.scale(loss)

    @property
    def is_first_scale_open(self) -> bool:
        """Whether the scale of the first step is not chosen yet."""
        return self._is_first_scale_open

    @property
    def value(self) -> float:
        """The current scale. Waits for the device."""
        return float(self._scaler.get_scale())

    def choose_first_scale(self, num_items: float) -> None:
        """Choose the scale of the first step.

        Args:
            num_items: number of items of the first micro-batch, in all processes.
        """
        self._is_first_scale_open = False
        self._scaler = self._make(_FIRST_SCALE / 2.0 ** math.ceil(math.log2(max(num_items, 1.0))))

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale. Call this method before the gradients are clipped."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> bool:
        """Update the parameters unless a gradient is infinite or NaN, and adjust the scale. Waits for the device.

        Returns:
            Whether the update was made.

        Raises:
            NonFiniteError: if this update is the 20th consecutive skipped update.
        """
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        is_made = self._scaler.get_scale() >= before
        self._num_skipped_in_a_row = 0 if is_made else self._num_skipped_in_a_row + 1
        if self._num_skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW:
            problem = f"The gradients were not finite in {_MAX_SKIPPED_IN_A_ROW} steps in a row"
            remedy = "expected finite gradients; use precision=bf16 or float32, or a lower learning rate"
            raise NonFiniteError(f"{problem}, with loss scales down to {before:g}: {remedy}.")
        return is_made

    def skip(self) -> None:
        """Prepare the next step after a callback has skipped the update. The scale does not change."""
        self._scaler.update(self._scaler.get_scale())

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the `torch.amp.GradScaler`, and the number of consecutive skipped updates."""
        return {
            **self._scaler.state_dict(),
            "is_first_scale_open": self._is_first_scale_open,
            "num_skipped_in_a_row": self._num_skipped_in_a_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        own = dict(state)
        self._is_first_scale_open = own.pop("is_first_scale_open")
        self._num_skipped_in_a_row = own.pop("num_skipped_in_a_row")
        self._scaler.load_state_dict(own)

    def _make(self, first_scale: float) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self._device_type, init_scale=first_scale, growth_interval=self._growth)
