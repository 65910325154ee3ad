"""`DetectAnomaly`: finds the operation that produces a NaN gradient."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from loopwright.hooks import Callback

if TYPE_CHECKING:
    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer


class DetectAnomaly(Callback):
    """Runs a fit in autograd's anomaly mode.

    If a backward operation produces a NaN, torch raises a RuntimeError. Torch also issues a warning with the traceback
    of the corresponding forward operation. Anomaly mode makes training several times slower. The trained weights do not
    change.
    """

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Enable anomaly mode until the fit ends."""
        stack.enter_context(torch.autograd.set_detect_anomaly(True))
