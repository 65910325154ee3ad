"""The fit loop: the stages of a plan, log steps, stops, and schedulers that are handed a metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch.optim.lr_scheduler import ReduceLROnPlateau

from loopwright import Callback, TrainingLoop, ValidationCallback
from loopwright.data import as_source
from loopwright.engine.downstream import downstream_validations
from loopwright.engine.feed import Feed
from loopwright.engine.fit import FitInputs, FitLoop
from loopwright.engine.validate import ValidationSet
from loopwright.errors import SettingError
from loopwright.plan import plan_fit
from tiny import batches, parts


class On(Callback):
    """Calls ``act`` with the fit in one hook."""

    def __init__(self, hook: str, act: Callable[[Fit], object]) -> None:
        setattr(self, hook, lambda fit, *_: act(fit))


class Fit:
    """A fit of `Regression` on four micro-batches a pass, validated on two batches as ``val``.

    Hooks are given this object instead of a trainer.

    Attributes:
        parts: objects of the run.
        saved: ``global_step`` of each save.
    """

    def __init__(
        self, loop: TrainingLoop, *callbacks: Callback, save_every: int | None = None, **settings: Any
    ) -> None:
        self.parts = parts(*callbacks, trainer=self, **settings)
        self.saved: list[int] = []
        self._loop = loop
        downstream = downstream_validations(self.parts)
        cadences = {each.name: each.every_n_vals for each in downstream}
        self._plan = plan_fit(loop, 4, {"val": 2}, save_every=save_every, downstream=cadences)
        self._inputs: dict[str, Any] = {
            "train_dataloader": None,
            "feed": Feed(as_source(batches(4), 0), self.parts.state),
            "val_dataloader": None,
            "val_sets": {"val": ValidationSet(name="val", dataloader=None, source=as_source(batches(2), 0))},
            "downstream": {each.name: each.hook for each in downstream},
            "save": self._save,
        }

    @property
    def step(self) -> int:
        """Steps completed."""
        return self.parts.state.global_step

    def run(self) -> None:
        """Carry out the rest of the plan."""
        state, optimizer = self.parts.state, self.parts.optimizer
        assert optimizer is not None
        self.parts.stopping.begin()
        num_validated = state.validated[1] if state.validated[0] == state.global_step else 0
        plan = self._plan.after(state.global_step, num_validated)
        FitLoop(self.parts, optimizer, FitInputs(loop=self._loop, plan=plan, **self._inputs)).run()

    def stop(self, *, is_interruption: bool = False) -> None:
        """End the fit as `Trainer.stop` does."""
        self.parts.stopping.ask("enough", is_interruption=is_interruption)

    def _save(self) -> bool:
        self.saved.append(self.step)
        return True


def test_values_are_logged_at_log_steps_and_at_the_end() -> None:
    """Catches a last step whose loss is in no log, and a time that is logged before its values."""
    told: list[tuple[int, list[str]]] = []
    fit = Fit(TrainingLoop(num_steps=7, eval_frequency=None), log_every_n_steps=3)
    loggers = (lambda values, step: told.append((step, list(values))),)
    timing_loggers = (lambda timing, step: told.append((step, sorted(timing))),)
    fit.parts.log.connect(loggers, timing_loggers)
    fit.run()
    values, timing = ["train/loss", "train/error"], ["peak_memory_bytes", "train/seconds", "train/steps_per_second"]
    assert told == [(step, names) for step in (3, 6, 7) for names in (values, timing)]


@pytest.mark.parametrize(
    ("hook", "step", "saved"),
    [("on_train_batch_end", 3, [2, 3]), ("on_train_batch_end", 4, [2, 4]), ("on_train_end", 8, [2, 4, 6, 8])],
)
def test_a_stopped_fit_is_saved_where_it_stands_and_once(hook: str, step: int, saved: list[int]) -> None:
    """Catches steps that are lost by a stop, and a checkpoint that is written twice."""
    stop = On(hook, lambda fit: fit.step == step and fit.stop())
    fit = Fit(TrainingLoop(num_steps=8, eval_frequency=None), stop, save_every=2)
    fit.run()
    assert (fit.step, fit.saved) == (step, saved)


@pytest.mark.parametrize("hook", ["on_validate_start", "on_validate_end", "on_train_end", "on_enter_validate"])
def test_a_stop_from_anywhere_is_saved(hook: str) -> None:
    """Catches a stop that is looked at only between training steps."""
    fit = Fit(TrainingLoop(num_steps=6, eval_frequency=3), On(hook, Fit.stop))
    fit.run()
    assert (fit.step, fit.saved) == (3, [3])


@pytest.mark.parametrize(("is_interruption", "saved"), [(False, [3, 3]), (True, [3])])
def test_a_step_that_was_saved_before_its_validations_is_saved_again_at_a_stop(
    is_interruption: bool, saved: list[int]
) -> None:
    """Catches a checkpoint without the state because of which a callback stopped the fit after a validation."""
    stop = On("on_validate_end", lambda fit: fit.stop(is_interruption=is_interruption))
    fit = Fit(TrainingLoop(num_steps=6, eval_frequency=3), stop, save_every=3)
    fit.run()
    assert (fit.step, fit.saved) == (3, saved)


def test_a_stop_does_not_read_the_rest_of_a_long_plan() -> None:
    """Catches a stop that walks through the stages that are left, of which there are 500 billion here."""
    fit = Fit(TrainingLoop(max_steps=10**12, eval_frequency=None), On("on_train_batch_end", Fit.stop), save_every=2)
    fit.run()
    assert fit.step == 1


def test_a_save_that_was_skipped_is_made_up_for_at_a_stop() -> None:
    """Catches a stopped fit without a checkpoint, because an earlier save of the same step failed."""
    stop = On("on_train_end", Fit.stop)
    fit = Fit(TrainingLoop(num_steps=2, eval_frequency=None), stop, save_every=2)
    fit._inputs["save"] = lambda: fit.saved.append(fit.step) or len(fit.saved) > 1
    fit.run()
    assert fit.saved == [2, 2]


def test_an_interrupted_round_of_validations_continues_with_what_it_had() -> None:
    """Catches a dataloader that is validated twice, and a metric of the first half that a scheduler does not find."""
    ran: list[str] = []

    class First(ValidationCallback):
        def run_validation(self, fit: Any, loop_idx: int | None, is_last: bool) -> None:
            fit.parts.log.log({"first/score": 1.0}, fit.step)
            ran.append("first")
            fit.stop(is_interruption=len(ran) == 1)

    class Second(ValidationCallback):
        def run_validation(self, *_: Any) -> None:
            ran.append("second")

    fit = Fit(TrainingLoop(num_steps=1), First(), Second())
    optimizer = fit.parts.optimizer
    assert optimizer is not None
    fit.parts.monitored = [(ReduceLROnPlateau(optimizer), "first/score")]
    fit.run()
    assert (ran, fit.parts.state.validated, fit.saved) == (["first"], (1, 2), [1])
    fit.run()
    assert ran == ["first", "second"]


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ("val/los", r"monitor='val/los': expected a metric .*: val/loss, val/error\. Did you mean val/loss\?"),
        ("val/loss", ""),
    ],
)
def test_a_scheduler_is_handed_its_metric_after_each_round(monitor: str, message: str) -> None:
    """Catches a scheduler that is stepped with an old value, and a misspelt metric that is a `KeyError`."""
    fit = Fit(TrainingLoop(num_steps=4, eval_frequency=2))
    optimizer = fit.parts.optimizer
    assert optimizer is not None
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=1e9)
    fit.parts.monitored = [(scheduler, monitor)]
    if message:
        with pytest.raises(SettingError, match=message):
            fit.run()
    else:
        fit.run()
        assert (scheduler.last_epoch, optimizer.param_groups[0]["lr"]) == (2, 0.0125)
