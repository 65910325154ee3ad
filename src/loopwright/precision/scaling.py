"""`Scaling`: scales the loss up for dtypes with a small range, and skips updates whose gradients overflow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Scaling:
    """Scales the loss of each micro-batch, and skips an update whose gradients are infinite or NaN.

    The method is loss scaling of Micikevicius et al., Mixed Precision Training (2018), section 3.2, as in
    `torch.amp.GradScaler`. The scale is halved after a skipped update, and doubled after
    ``growth_every_n_steps`` updates in a row without a skipped update.

    Args:
        device_type: type of the device in torch, such as "cuda".
        first_scale: scale of the first step.
        growth_every_n_steps: number of updates in a row, none of them skipped, after which the scale is doubled.
    """

    def __init__(self, device_type: str, first_scale: float = 65536.0, growth_every_n_steps: int = 2000) -> None:
        self._scaler = torch.amp.GradScaler(device_type, init_scale=first_scale, growth_interval=growth_every_n_steps)

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss times the scale. The backward uses this product."""
        return self._scaler.scale(loss)

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale. Call this method before the gradients are clipped."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> bool:
        """Update the parameters unless a gradient is infinite or NaN, adjust the scale, and wait for the device.

        Returns:
            Whether the update was made.
        """
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        return self._scaler.get_scale() >= before

    def skip(self) -> None:
        """Prepare for the next step after an update that was skipped for another reason. The scale stays."""
        self._scaler.update(self._scaler.get_scale())

    def state_dict(self) -> dict[str, Any]:
        """Return the scale, the number of updates since the scale last changed, and the constants of the method."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._scaler.load_state_dict(state)
