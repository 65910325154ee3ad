"""`EarlyStopping`: ends a fit when a metric of its validations no longer gets better."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from loopwright.callbacks.saved_state import check_counts, check_names, check_numbers, check_settings
from loopwright.callbacks.stopping_rule import Seen, StoppingRule
from loopwright.errors import SettingError, did_you_mean
from loopwright.hooks import Callback

if TYPE_CHECKING:
    from pathlib import Path

    from loopwright.loop import LoopCallback
    from loopwright.plan import Plan
    from loopwright.trainer import Trainer


class EarlyStopping(Callback):
    """Stops a fit after a validation by which a metric has not improved for a while, has diverged, or is not finite.

    It looks when a whole round of validations is over: every dataloader and every downstream validation of a step. The
    metric's name begins with that of the validation that logs it; a round in which that one is not due does not count.

    What it has seen is part of a checkpoint. A run that goes on from one stops where the run that was never cut stops;
    a run that it had stopped is over: a resume trains nothing, and `Trainer.stop_reason` says why again, unless a
    larger ``patience`` leaves it some. Every fit that is no resume is watched from its own beginning.

    Args:
        monitor: the metric, by its full name.
        mode: whether less is better (``min``) or more (``max``).
        patience: validations in a row without improvement after which the fit ends.
        min_delta: what the best value has to be improved by more than, in the metric's unit.
        divergence_threshold: end at once where the metric is worse than this; None: off. One that is NaN or infinite
            always ends the fit.

    Raises:
        SettingError: for values other than these; when a fit starts that has no validations; after the first of them
            that should have logged the metric and did not.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: str = "min",
        patience: int = 3,
        min_delta: float = 0.0,
        divergence_threshold: float | None = None,
    ) -> None:
        self._rule = StoppingRule(
            monitor=monitor,
            mode=mode,
            patience=patience,
            min_delta=min_delta,
            divergence_threshold=divergence_threshold,
        )
        self._seen = Seen()
        self._val_dataloader: Any = None

    def state_dict(self) -> dict[str, Any]:
        """What was seen, and of which metric."""
        return {**self._settings, **asdict(self._seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what was seen.

        Raises:
            CheckpointError: if it is that of another metric, not whole, or was set otherwise than by ``patience``.
        """
        check_names("EarlyStopping", state_dict, self.state_dict())
        check_settings("EarlyStopping", state_dict, self._settings)
        seen = {field.name: state_dict[field.name] for field in fields(Seen)}
        check_counts("EarlyStopping", seen, "num_not_better")
        if any(value is not None for name, value in seen.items() if name != "num_not_better"):
            check_counts("EarlyStopping", seen, "best_step", "last_step")
            check_numbers("EarlyStopping", seen, "best", "last")
        self._seen = Seen(**seen)

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Begin anew; a resume puts what was seen back afterwards."""
        self._seen = Seen()
        self._val_dataloader = val_dataloader
        stack.callback(setattr, self, "_val_dataloader", None)

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Stop at once where the run that is resumed was over."""
        plan = trainer.plan
        assert plan is not None, "a fit that starts has a plan"
        if plan.eval_every is None and plan.total_steps:
            raise SettingError(
                "EarlyStopping.monitor",
                f"={self._rule.monitor}: expected a metric of the validations, and this fit has none; give "
                "val_dataloader and eval_frequency, or leave the callback out.",
            )
        self._stop_if_over(trainer)

    def on_enter_validate_all(
        self,
        trainer: Trainer,
        stack: ExitStack,
        val_dataloaders: Any,
        loop: LoopCallback,
        ckpt_paths: list[Path | None],
    ) -> None:
        """Look at the metric when the round has ended, if it is one of the fit's plan."""
        plan = trainer.plan
        is_of_fit = val_dataloaders is self._val_dataloader and ckpt_paths == [None]
        if is_of_fit and plan is not None and plan.validates_at(trainer.global_step):
            stack.enter_context(self._looking_afterwards(trainer, plan))

    @property
    def _settings(self) -> dict[str, Any]:
        names = ("monitor", "mode", "min_delta", "divergence_threshold")
        return {name: value for name, value in asdict(self._rule).items() if name in names}

    @contextmanager
    def _looking_afterwards(self, trainer: Trainer, plan: Plan) -> Iterator[None]:
        yield
        self._look(trainer, plan)  # not where an exception ends the round, or a signal: the resumed run completes it

    def _look(self, trainer: Trainer, plan: Plan) -> None:
        monitor, step = self._rule.monitor, trainer.global_step
        names = [*(val_set.name for val_set in plan.val), *(name for name, _ in plan.downstream)]
        owner = max((name for name in names if monitor.startswith(f"{name}/")), key=len, default=None)
        if owner in dict(plan.downstream) and owner not in plan.downstream_at(step):
            return
        metrics = trainer.metrics
        if owner is None or monitor not in metrics:
            logged = [metric for metric in metrics if metric.startswith(tuple(f"{name}/" for name in names))]
            problem = f"={monitor}: expected a metric of the validations: {', '.join(logged) or 'none was logged'}."
            raise SettingError("EarlyStopping.monitor", problem + did_you_mean(monitor, logged))
        self._seen = self._rule.after(self._seen, metrics[monitor], step)
        self._stop_if_over(trainer)

    def _stop_if_over(self, trainer: Trainer) -> None:
        reason = self._rule.reason(self._seen)
        if reason is not None and trainer.stop_reason is None:
            trainer.stop(reason)
