"""`EarlyStopping`: stops a fit when a validation metric no longer improves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from loopwright.callbacks.saved_state import check_counts, check_names, check_numbers, check_settings
from loopwright.callbacks.stopping_rule import Seen, StoppingRule
from loopwright.errors import SettingError, did_you_mean
from loopwright.hooks import Callback
from loopwright.plan import mean_prefix, settle_mode

if TYPE_CHECKING:
    from pathlib import Path

    from loopwright.loop import LoopCallback
    from loopwright.plan import Plan
    from loopwright.trainer import Trainer


class EarlyStopping(Callback):
    """Stops a fit when a validation metric has not improved for some validations, has diverged, or is not finite.

    The metric is checked after each round of validations. A round consists of the validations of all dataloaders
    after one step, and the validations that callbacks then run in ``run_validation``. The metric's name begins with the
    name of the validation that logs the metric. A round in which this validation does not run is not counted.

    Checkpoints contain the history of the metric, so a resumed run stops at the same step as an uninterrupted run.
    If this callback stopped a run, a resume trains no further step and repeats no validation. The resume sets
    `Trainer.stop_reason` and `Trainer.stopped_by` to the values of the stopped run. With a larger ``patience``, the
    resume may continue training. A fit that is not a resume starts with an empty history.

    Args:
        monitor: full name of the metric, such as ``val/loss``.
        mode: ``min`` if lower values are better, ``max`` if higher values are better. None means ``min`` for a loss,
            a perplexity or an error. For any other metric, None is refused.
        patience: number of consecutive validations without an improvement after which the fit is stopped.
        min_delta: margin in the metric's unit. A value is an improvement only if it is better than the best value so
            far by more than ``min_delta``.
        divergence_threshold: threshold for the metric. A value worse than the threshold stops the fit immediately. None
            turns this check off. A NaN or infinite value always stops the fit.

    Raises:
        SettingError: if a setting is invalid, if a fit without validations starts, or if the metric is missing after
            the first round of validations that should have logged it.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: str | None = None,
        patience: int = 3,
        min_delta: float = 0.0,
        divergence_threshold: float | None = None,
    ) -> None:
        self._rule = StoppingRule(
            monitor=monitor,
            mode=settle_mode(mode, monitor if isinstance(monitor, str) and monitor.strip() else None),
            patience=patience,
            min_delta=min_delta,
            divergence_threshold=divergence_threshold,
        )
        self._seen = Seen()
        self._val_dataloader: Any = None

    @property
    def monitor(self) -> str:
        """Full name of the metric."""
        return self._rule.monitor

    @property
    def to_continue(self) -> dict[str, object]:
        """A larger ``patience`` with which a resume continues training.

        The mapping is empty if the metric is not finite or is worse than ``divergence_threshold``.
        """
        patience = self._rule.larger_patience(self._seen)
        return {} if patience is None else {"patience": patience}

    def state_dict(self) -> dict[str, Any]:
        """Return the settings and the history of the metric."""
        return {**self._settings, **asdict(self._seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history of the metric.

        Raises:
            CheckpointError: if ``state_dict`` is incomplete or invalid, or if a setting except ``patience`` differs.
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
        """Clear the history. A resume restores it afterwards."""
        self._seen = Seen()
        self._val_dataloader = val_dataloader
        stack.callback(setattr, self, "_val_dataloader", None)

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Stop the fit before its first step if this callback had already stopped the resumed run."""
        plan = trainer.plan
        assert plan is not None, "a fit that starts has a plan"
        if plan.eval_every is None and plan.total_steps:
            raise SettingError(
                "EarlyStopping.monitor",
                f"={self._rule.monitor}: expected a metric of a validation, but this fit has no validations; give "
                "val_dataloader and eval_frequency, or remove the callback EarlyStopping.",
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
        """Check the metric at the end of the round if the fit's plan contains the round."""
        plan = trainer.plan
        is_of_fit = val_dataloaders is self._val_dataloader and ckpt_paths == [None]
        if is_of_fit and plan is not None and plan.validates_at(trainer.global_step):
            stack.enter_context(self._checking_afterwards(trainer, plan))

    @property
    def _settings(self) -> dict[str, Any]:
        names = ("monitor", "mode", "min_delta", "divergence_threshold")
        return {name: value for name, value in asdict(self._rule).items() if name in names}

    @contextmanager
    def _checking_afterwards(self, trainer: Trainer, plan: Plan) -> Iterator[None]:
        yield
        # This check is skipped if an exception or a signal ends the round. After a signal, the resumed run repeats the
        # round.
        self._check(trainer, plan)

    def _check(self, trainer: Trainer, plan: Plan) -> None:
        monitor, step = self._rule.monitor, trainer.global_step
        names = [*(val_set.name for val_set in plan.val), *(name for name, _ in plan.downstream)]
        names += [prefix] if (prefix := mean_prefix([val_set.name for val_set in plan.val])) else []
        owner = max((name for name in names if monitor.startswith(f"{name}/")), key=len, default=None)
        if owner in dict(plan.downstream) and owner not in plan.downstream_at(step):
            return
        metrics = trainer.metrics
        if owner is None or monitor not in metrics:
            logged = [metric for metric in metrics if metric.startswith(tuple(f"{name}/" for name in names))]
            problem = f"={monitor}: expected a metric that the validations log: {', '.join(logged) or 'they log none'}."
            raise SettingError("EarlyStopping.monitor", problem + did_you_mean(monitor, logged))
        self._seen = self._rule.after(self._seen, metrics[monitor], step)
        self._stop_if_over(trainer)

    def _stop_if_over(self, trainer: Trainer) -> None:
        reason = self._rule.reason(self._seen)
        if reason is not None and trainer.stop_reason is None:
            trainer.stop(reason)
