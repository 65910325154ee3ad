"""Functions that compute the last step of a fit and the steps of an epoch, and propose a setting for a longer fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from loopwright.errors import SettingError, refuse

if TYPE_CHECKING:
    from loopwright.plan.passes import Passes
    from loopwright.plan.plan import Plan
    from loopwright.plan.training_settings import TrainingSettings


class End(NamedTuple):
    """The ``global_step`` at which a fit ends, and lines that explain the effects of the settings."""

    stop_step: int
    notes: list[str]


def find_end(
    settings: TrainingSettings, passes: Passes, start_step: int, intervals: Sequence[int | str | None] = ()
) -> End:
    """Find the step at which a fit that starts at ``start_step`` ends.

    Args:
        settings: settings of the loop.
        passes: passes over the training data.
        start_step: ``global_step`` at which the fit starts.
        intervals: intervals of saves. If an interval is in epochs, ``steps_per_epoch`` has an effect.

    Raises:
        ValueError: if no length is given, if the number of steps of an epoch is needed but unknown, or if an epoch is
            longer than a pass.
    """
    steps_per_epoch = find_steps_per_epoch(settings, passes)
    uses_epochs = any(isinstance(each, str) for each in (settings.eval_frequency, *intervals))
    if settings.num_steps is not None:
        return _end_of_steps(settings, settings.num_steps, start_step, uses_epochs)
    ends, notes = [], []
    if settings.num_epochs is not None:
        if steps_per_epoch is None:
            expected = "the steps of an epoch, because the training dataloader is of unknown length"
            remedy = "use for example loop.steps_per_epoch=100, or give the length as loop.max_steps"
            raise refuse("steps_per_epoch", None, f"{expected} and num_epochs={settings.num_epochs}", remedy)
        num_steps = settings.num_epochs * steps_per_epoch
        ends.append(start_step + num_steps)
        notes.append(_epochs_note(settings.num_epochs, steps_per_epoch, num_steps, passes.start_micro_batch))
    if settings.max_steps is not None:
        ends.append(settings.max_steps)
        if settings.max_steps <= start_step:
            notes = [f"max_steps={settings.max_steps}: global_step is {start_step} already, nothing is left to train"]
        elif settings.num_epochs is not None:
            notes.append(_first_end_note(settings.max_steps, settings.num_epochs, epochs_end=ends[0]))
    if not ends:
        raise SettingError(
            "num_steps, max_steps, num_epochs",
            ": expected one of the three to say how long to train; use for example loop.max_steps=1000.",
        )
    return End(max(start_step, min(ends)), notes + _unused_epoch_note(settings, uses_epochs))


def longer_length(plan: Plan) -> tuple[str, int]:
    """Return the name of the setting that ends the fit of ``plan``, and a larger value for this setting.

    If a fit has no other setting for its length, it trains at least twice as many steps with this value.

    >>> from loopwright.loop import TrainingLoop
    >>> from loopwright.plan import plan_fit
    >>> longer_length(plan_fit(TrainingLoop(max_steps=100, num_epochs=2), num_micro_batches=45))
    ('num_epochs', 4)
    """
    loop = plan.loop_settings
    return longer_setting(loop.num_steps, loop.num_epochs, loop.max_steps, plan.stop_step)


def longer_setting(
    num_steps: int | None, num_epochs: int | None, max_steps: int | None, stop_step: int
) -> tuple[str, int]:
    """Return the result of `longer_length` for the settings of a loop and the last step of its plan."""
    if num_steps is not None:
        return "num_steps", 2 * num_steps
    if num_epochs is not None and max_steps != stop_step:
        return "num_epochs", 2 * num_epochs
    return "max_steps", 2 * stop_step


def _end_of_steps(settings: TrainingSettings, num_steps: int, start_step: int, uses_epochs: bool) -> End:
    notes = _unused_epoch_note(settings, uses_epochs)
    if settings.max_steps is not None:
        notes.append(f"num_steps={num_steps} supersedes max_steps={settings.max_steps}")
    return End(start_step + num_steps, notes)


def find_steps_per_epoch(settings: TrainingSettings, passes: Passes) -> int | None:
    """Return the number of steps in an epoch; None if it is unknown.

    Raises:
        ValueError: if an epoch is longer than a pass.
    """
    steps_per_pass = passes.steps_per_pass
    if settings.steps_per_epoch is None:
        return steps_per_pass
    if steps_per_pass is not None and settings.steps_per_epoch > steps_per_pass:
        expected = f"at most {steps_per_pass}, the steps of one pass over the training dataloader"
        raise refuse("steps_per_epoch", settings.steps_per_epoch, expected, "use null for a whole pass")
    return settings.steps_per_epoch


def _epochs_note(num_epochs: int, steps_per_epoch: int, num_steps: int, start_micro_batch: int) -> str:
    start = f", counted from micro-batch {start_micro_batch} of the pass" if start_micro_batch else ""
    return f"num_epochs={num_epochs}: {num_steps:,} steps, {steps_per_epoch:,} in an epoch{start}"


def _first_end_note(max_steps: int, num_epochs: int, epochs_end: int) -> str:
    if max_steps < epochs_end:
        return f"max_steps={max_steps} ends the fit before num_epochs={num_epochs} would"
    if max_steps > epochs_end:
        return f"num_epochs={num_epochs} ends the fit before max_steps={max_steps} would"
    return f"max_steps={max_steps} and num_epochs={num_epochs} end the fit at the same step"


def _unused_epoch_note(settings: TrainingSettings, uses_epochs: bool) -> list[str]:
    if settings.steps_per_epoch is None or settings.num_epochs is not None or uses_epochs:
        return []
    return [f"steps_per_epoch={settings.steps_per_epoch} has no effect unless another setting is in epochs"]
