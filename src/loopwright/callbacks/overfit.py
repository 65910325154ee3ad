"""`OverfitOneBatch`: trains on the first micro-batch alone, which every working model can learn by heart."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from loopwright.errors import CheckpointError, refuse, refuse_type
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

_log = logging.getLogger("loopwright")


class OverfitOneBatch(Callback):
    """Gives the model the first micro-batch of a fit in place of every other, and says whether it was learnt by heart.

    The dataloader is read as ever, so that nothing else differs from the run that is to be debugged; validations see
    their own batches. Dropout and augmentation in the model stay on, and keep the loss up: turn them off for this. A
    checkpoint does not hold the micro-batch, so such a run cannot be resumed.

    Args:
        goal: ``train/loss`` that counts as close to 0.

    Raises:
        SettingError: for a goal that is no number above 0.
    """

    def __init__(self, goal: float = 0.01) -> None:
        if isinstance(goal, bool) or not isinstance(goal, int | float):
            raise refuse_type("goal", goal, "a number above 0")
        if not goal > 0:
            raise refuse("goal", goal, "a number above 0")
        self._goal = goal
        self._batch: Any = None
        self._has_batch = False
        self._is_training = False

    def state_dict(self) -> dict[str, Any]:
        """Nothing: it is here so that a resume is noticed."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on without the micro-batch.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError(
            "ckpt_path: the run overfits one micro-batch, which its checkpoints do not hold; start it again, or load "
            "its weights alone with init_from."
        )

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Keep the first micro-batch, as it came to the device."""
        if not self._has_batch:
            self._batch, self._has_batch = batch, True
        self._is_training = True

    def on_before_forward(
        self, trainer: Trainer, model: nn.Module, batch: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        """Put it in place of the present one."""
        if self._is_training:
            args[0] = self._batch

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Leave validations alone."""
        self._is_training = False

    def on_fit_end(self, trainer: Trainer, loop: LoopCallback) -> None:
        """Say what came of it."""
        loss = trainer.metrics.get("train/loss")
        if loss is not None and loss <= self._goal:
            said = f"One micro-batch was learnt by heart: train/loss {loss:.3g}."
            _log.info(said)
            for logger in trainer.loggers:
                logger.log_text({"overfit": said}, trainer.global_step)
        elif loss is not None:
            _log.warning(
                "One micro-batch was not learnt by heart: train/loss is %.3g after step %d, above %g. Look at the "
                "loss, the learning rate and what is dropped out; or train for longer.",
                loss,
                trainer.global_step,
                self._goal,
            )
