"""`RecordingCallback`: writes the plan and the optimizer to the run directory, and the configuration to checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from loopwright.errors import SettingError, did_you_mean
from loopwright.experiment.jobs.rate_curve import Course
from loopwright.experiment.rundir.writer import DirectoryWriter
from loopwright.hooks import Callback
from loopwright.loggers.lines import plan_text, sizes_of, with_notes
from loopwright.loop import LoopCallback
from loopwright.optim import kind_of
from loopwright.plan import plan_json

if TYPE_CHECKING:
    from pathlib import Path

    from torch.optim import Optimizer

    from loopwright.trainer import Trainer


_log = logging.getLogger("loopwright")


class RecordingCallback(Callback):
    """Records the plan and the optimizer when a fit starts, and adds the configuration to every checkpoint.

    The attribute ``validated_step`` is the ``global_step`` of the last validation.

    Args:
        writer: writer of the files in the run directory.
        config: resolved configuration.
        course: function that describes the learning rates of a plan in one line.
        objective: name of the metric that is the result of the run.
        plan_notes: lines about the configuration. The lines are added to all descriptions of the plan.
    """

    def __init__(
        self,
        writer: DirectoryWriter,
        config: Mapping[str, Any],
        course: Course,
        objective: str,
        plan_notes: Sequence[str] = (),
    ) -> None:
        self._writer = writer
        self._config = config
        self._course = course
        self.objective = objective
        self.plan_notes = plan_notes
        self.validated_step = 0

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Record the plan and the optimizer. The plan of a resumed run includes the steps before the checkpoint.

        Nothing is recorded for a complete run that a callback stops again before the first step of the resume.
        """
        plan = trainer.plan
        assert plan is not None, "the plan is made before a fit starts"
        if trainer.stop_reason is not None and self._writer.was_complete:
            return
        self._writer.write_resumption(plan.position, plan.stop_step)
        if self._writer.is_resumed:
            plan = plan.whole()
        course = self._course(plan) if plan.total_steps else None
        text = plan_text(plan, train_dataloader, course, trainer.callbacks)
        batch_size, _ = sizes_of(train_dataloader, plan.num_micro_batches)
        self._writer.write_plan(text, {**plan_json(with_notes(plan, [self])), "batch_size": batch_size})
        assert trainer.optimizer is not None, "checked by fit"
        self._writer.write_optimizer(_facts(trainer.optimizer))

    def on_enter_validate_all(
        self,
        trainer: Trainer,
        stack: ExitStack,
        val_dataloaders: Any,
        loop: LoopCallback,
        ckpt_paths: list[Path | None],
    ) -> None:
        """Check the objective at the end of each round of validations in a fit.

        Raises:
            SettingError: if the objective is a metric ``val/…`` that was not logged. The error is raised when the
                context ends.
        """
        if trainer.plan is not None:
            stack.enter_context(self._checking_afterwards(trainer))

    @contextmanager
    def _checking_afterwards(self, trainer: Trainer) -> Iterator[None]:
        yield
        validated, name = [name for name in trainer.metrics if name.startswith("val/")], self.objective
        if validated and name.startswith("val/") and name not in validated:
            problem = f"={name!r}: no such metric. Available: {', '.join(validated)}."
            raise SettingError("objective", problem + did_you_mean(name, validated))

    def on_enter_validate(self, trainer: Trainer, stack: ExitStack, val_dataloader: Any, loop: LoopCallback) -> None:
        """Store the ``global_step``. Outside a fit, ``global_step`` is the step of the validated checkpoint."""
        self.validated_step = trainer.global_step

    def on_save_checkpoint(self, trainer: Trainer, state_dict: dict[str, Any]) -> None:
        """Add the configuration to the checkpoint, so that the checkpoint can be used without its run directory."""
        state_dict["config"] = dict(self._config)


def _facts(optimizer: Optimizer) -> dict[str, Any]:
    """Return the class name of an optimizer, and a description of each parameter group as JSON values."""
    groups = [
        {
            "kind": kind_of(group),
            "lr": float(group.get("initial_lr", group["lr"])),
            "weight_decay": float(group.get("weight_decay", 0.0)),
            "num_tensors": len(group["params"]),
            "num_values": _num_values(group["params"]),
        }
        for group in optimizer.param_groups
    ]
    return {"name": type(optimizer).__name__, "groups": groups}


def _num_values(parameters: Sequence[Tensor]) -> int | None:
    """Return the total number of values, or None if a parameter is lazy and has no shape before the first batch."""
    return None if any(map(is_lazy, parameters)) else sum(parameter.numel() for parameter in parameters)
