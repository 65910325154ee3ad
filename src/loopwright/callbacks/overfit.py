"""`OverfitOneBatch`: trains only on the first micro-batch, to check that the model can memorise a micro-batch."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

from loopwright.errors import CheckpointError, refuse, refuse_type
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from torch import nn

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

_log = logging.getLogger("loopwright")


class OverfitOneBatch(Callback):
    """Replaces every training micro-batch by the first micro-batch. Logs whether the model memorised this micro-batch.

    The dataloader is still read, so that only the micro-batches differ from a run without this callback. Validation
    batches are not replaced. Turn off dropout and augmentation inside the model, because dropout and augmentation
    prevent a low loss. A run with this callback cannot be resumed, because checkpoints do not contain the first
    micro-batch.

    Args:
        goal: largest ``train/loss`` at which the micro-batch counts as memorised.

    Raises:
        SettingError: if ``goal`` is not a number above 0.
    """

    repeats_first_batch: Literal[True] = True  # the printed plan reads this attribute

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
        """Return an empty mapping, so that a resume calls `load_state_dict`, which raises an error."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a resume, because checkpoints do not contain the micro-batch.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError(
            "ckpt_path: a run with OverfitOneBatch cannot be resumed, because its checkpoints do not contain the "
            "micro-batch; start it again, or load only its weights with init_from."
        )

    def on_train_batch_start(self, trainer: Trainer, model: nn.Module, batch: Any, batch_idx: int) -> None:
        """Store the first micro-batch, which has already been moved to the device."""
        if not self._has_batch:
            self._batch, self._has_batch = batch, True
        self._is_training = True

    def on_before_forward(
        self, trainer: Trainer, model: nn.Module, batch: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        """Replace a training micro-batch by the first micro-batch. Validation batches are not replaced."""
        if self._is_training:
            args[0] = self._batch

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Stop replacing batches until the next training micro-batch."""
        self._is_training = False

    def on_fit_end(self, trainer: Trainer, loop: LoopCallback) -> None:
        """Log whether the micro-batch was memorised."""
        loss = trainer.metrics.get("train/loss")
        if loss is not None and loss <= self._goal:
            message = f"The model memorised one micro-batch: train/loss is {loss:.3g}."
            _log.info(message)
            for logger in trainer.loggers:
                logger.log_text({"overfit": message}, trainer.global_step)
        elif loss is not None:
            _log.warning(
                "The model did not memorise one micro-batch: train/loss is %.3g after step %d, above goal=%g. Check "
                "the loss, the learning rate and dropout, or train for more steps.",
                loss,
                trainer.global_step,
                self._goal,
            )
