"""`TimeLimit`: a run that has so many minutes ends in time to save, and can be resumed."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from loopwright.errors import refuse, refuse_type
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from loopwright.trainer import Trainer

_RESERVE_FRACTION = 0.05
_MAX_RESERVE_SECONDS = 30.0


class TimeLimit(Callback):
    """Interrupts a fit before its time is up: it saves after its step, and a validation is cut short.

    What is kept for ending is twice the longest save so far, the longest stretch between two looks at the clock, and a
    twentieth of the limit, 30 seconds at most.

    Args:
        minutes: wall clock from the making of the trainer on, across its fits; a run that is resumed in a new process
            has as many again.

    Raises:
        SettingError: if ``minutes`` is no number above 0.
    """

    def __init__(self, minutes: float) -> None:
        if isinstance(minutes, bool) or not isinstance(minutes, int | float):
            raise refuse_type("minutes", minutes, "a number above 0")
        if not 0 < minutes < math.inf:
            raise refuse("minutes", minutes, "a number above 0")
        self._minutes = minutes
        self._began_seconds = self._looked_seconds = self._save_began_seconds = 0.0
        self._longest_save_seconds = self._longest_stretch_seconds = 0.0

    def setup(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._began_seconds = self._looked_seconds = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Look at the clock."""
        self._look(trainer)

    def on_validate_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Look at the clock."""
        self._look(trainer)

    def on_save_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Note when a save begins."""
        self._save_began_seconds = time.monotonic()

    def on_after_save_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Note how long it took."""
        now = time.monotonic()
        self._longest_save_seconds = max(self._longest_save_seconds, now - self._save_began_seconds)
        self._looked_seconds = now

    def _look(self, trainer: Trainer) -> None:
        now = time.monotonic()
        self._longest_stretch_seconds = max(self._longest_stretch_seconds, now - self._looked_seconds)
        self._looked_seconds = now
        limit_seconds = 60.0 * self._minutes
        reserve_seconds = (
            2 * self._longest_save_seconds
            + self._longest_stretch_seconds
            + min(_RESERVE_FRACTION * limit_seconds, _MAX_RESERVE_SECONDS)
        )
        if now - self._began_seconds >= limit_seconds - reserve_seconds:
            trainer.stop(f"the limit of {self._minutes:g} minutes", is_interruption=True)
