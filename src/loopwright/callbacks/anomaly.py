"""`DetectAnomaly`: finds the operation from which a NaN in the gradients comes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from loopwright.hooks import Callback

if TYPE_CHECKING:
    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


class DetectAnomaly(Callback):
    """Fits in autograd's anomaly mode: a NaN in a backward raises, with the traceback of the forward it belongs to.

    Makes a step several times slower. What is computed stays the same.
    """

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Enter the mode until the fit ends."""
        stack.enter_context(torch.autograd.set_detect_anomaly(True))
