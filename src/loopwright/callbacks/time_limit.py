"""`TimeLimit`: interrupts a run before a time limit, early enough to save a checkpoint for a resume."""

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
_BATCHES_BETWEEN_AGREEMENTS = 16  # of a validation; see engine/agreement.py


class TimeLimit(Callback):
    """Interrupts a fit before the time limit.

    An interrupted fit completes the current step and saves a checkpoint. A running validation is aborted. The fit is
    interrupted before the limit, so that there is time for the save. The reserved time is the sum of three durations:
    twice the longest save so far, the longest time between two checks of the clock, and 5 % of the limit (at most 30
    seconds). If several processes train together, they agree to stop at the end of the next step, or at every 16th
    batch of a validation. The longest time between two such agreements is then also reserved.

    Args:
        minutes: time limit in minutes of wall time since the trainer was built. The time between two fits also counts.
            A run that is resumed in a new process has the full time limit again.

    Raises:
        SettingError: if ``minutes`` is not a number above 0.
    """

    def __init__(self, minutes: float) -> None:
        if isinstance(minutes, bool) or not isinstance(minutes, int | float):
            raise refuse_type("minutes", minutes, "a number above 0")
        if not 0 < minutes < math.inf:
            raise refuse("minutes", minutes, "a number above 0")
        self._minutes = minutes
        self._began_seconds = self._checked_seconds = self._save_began_seconds = 0.0
        self._longest_save_seconds = self._longest_interval_seconds = 0.0
        self._is_shared = False
        self._agreed_seconds = self._longest_agreement_seconds = 0.0

    def setup(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._began_seconds = self._checked_seconds = self._agreed_seconds = time.monotonic()
        self._is_shared = trainer.world_size > 1

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Check the clock."""
        self._check(trainer, self._is_shared and trainer.should_run_optimizer_step)

    def on_validate_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Check the clock."""
        self._check(trainer, self._is_shared and (batch_idx + 1) % _BATCHES_BETWEEN_AGREEMENTS == 0)

    def on_save_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Store the time at which the save begins."""
        self._save_began_seconds = time.monotonic()

    def on_after_save_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        """Measure the duration of the save."""
        now = time.monotonic()
        self._longest_save_seconds = max(self._longest_save_seconds, now - self._save_began_seconds)
        self._checked_seconds = self._agreed_seconds = now

    def _check(self, trainer: Trainer, is_agreement: bool) -> None:
        now = time.monotonic()
        if is_agreement:
            self._longest_agreement_seconds = max(self._longest_agreement_seconds, now - self._agreed_seconds)
            self._agreed_seconds = now
        self._longest_interval_seconds = max(self._longest_interval_seconds, now - self._checked_seconds)
        self._checked_seconds = now
        limit_seconds = 60.0 * self._minutes
        reserve_seconds = (
            2 * self._longest_save_seconds
            + self._longest_interval_seconds
            + self._longest_agreement_seconds
            + min(_RESERVE_FRACTION * limit_seconds, _MAX_RESERVE_SECONDS)
        )
        if now - self._began_seconds >= limit_seconds - reserve_seconds:
            trainer.stop(f"the time limit of {self._minutes:g} minutes", is_interruption=True)
