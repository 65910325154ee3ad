"""`RunRecorder`: the callback by which a run keeps its directory up to date."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from loopwright.experiment.rundir.record import RunRecord
from loopwright.hooks import Callback
from loopwright.loggers.lines import plan_text
from loopwright.loop import LoopCallback
from loopwright.plan import plan_json

if TYPE_CHECKING:
    from loopwright.trainer import Trainer


class RunRecorder(Callback):
    """Writes the plan of a fit when it starts, the configuration into every checkpoint, and notes the step validated.

    Args:
        record: of the run.
        config: resolved.
    """

    def __init__(self, record: RunRecord, config: Mapping[str, Any]) -> None:
        self._record = record
        self._config = config
        self.validated_step = 0

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Write the plan, which after a resume is the rest of the run's."""
        plan = trainer.plan
        assert plan is not None, "a fit that starts has a plan"
        self._record.write_plan(plan_text(plan, train_dataloader), plan_json(plan))

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Note the step: outside a fit it is that of a checkpoint, only while this is validated."""
        self.validated_step = trainer.global_step

    def on_save_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Put the configuration into the checkpoint, so that it explains itself wherever it is taken."""
        state_dict["config"] = dict(self._config)
