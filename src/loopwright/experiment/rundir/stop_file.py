"""`StopFile`: a callback that ends a job of a sweep when the file ``stop`` appears in its run directory."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwright.errors import CheckpointError, on_one_line
from loopwright.hooks import Callback
from loopwright.records import read_mapping
from loopwright.regular_files import replace_file

if TYPE_CHECKING:
    from torch import nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

STOP_FILE = "stop"
PRUNER = "pruner"  # name of the callback, and the recorded author of the stop
INTERRUPT = "interrupt"
_MAX_REASON = 300


class StopFile(Callback):
    """Looks for the file ``stop`` at the end of each validation and after every ``every_n_steps`` steps.

    The file says who wrote it. The pruner of a search stops the run at the end of a validation: its last checkpoint is
    saved, and its state is "stopped". ``sweep stop`` interrupts the run as SIGTERM does, so that the run can be
    resumed.

    Args:
        directory: run directory.
        every_n_steps: number of steps between two looks.
    """

    def __init__(self, directory: Path, every_n_steps: int = 50) -> None:
        self._directory = directory
        self._every_n_steps = every_n_steps

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback) -> None:
        """Stop or interrupt the fit if the file exists. After the last step, the fit ends by itself."""
        if trainer.plan is None or trainer.global_step >= trainer.plan.stop_step:
            return
        if not os.path.lexists(self._directory / STOP_FILE):
            return
        by, reason = read_stop_file(self._directory)
        if by == PRUNER:
            trainer.stop(reason)
        else:
            _interrupt(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Interrupt the fit if the file exists and its author is not the pruner."""
        if trainer.global_step % self._every_n_steps or not os.path.lexists(self._directory / STOP_FILE):
            return
        assert trainer.plan is not None, "a fit has a plan"
        if trainer.global_step < trainer.plan.stop_step and read_stop_file(self._directory)[0] != PRUNER:
            _interrupt(trainer)


def _interrupt(trainer: Trainer) -> None:
    """Send SIGTERM to process 0, which saves and ends the run."""
    if trainer.rank == 0:
        os.kill(os.getpid(), signal.SIGTERM)


def write_stop_file(directory: Path, by: str, reason: str) -> None:
    """Ask the run in ``directory`` to end. ``by`` is "pruner" or "interrupt".

    Raises:
        OSError: if the file cannot be written.
    """
    replace_file(directory / STOP_FILE, json.dumps({"by": by, "reason": reason}).encode())


def read_stop_file(directory: Path) -> tuple[str, str]:
    """Return who wrote the file ``stop``, and why."""
    try:
        found = read_mapping(directory / STOP_FILE)
    except CheckpointError:
        found = {}
    return str(found.get("by", INTERRUPT)), on_one_line(str(found.get("reason", "")), _MAX_REASON)
