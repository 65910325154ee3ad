"""Functions that check the intervals ``every_n_steps`` and ``keep_every`` of saves, and convert them to steps."""

from __future__ import annotations

from typing import NamedTuple

from loopwright.errors import SettingError, check_count
from loopwright.plan.epochs import EPOCHS, check_epochs, read_epochs, show_epochs, whole_epochs

_EVERY, _KEEP = "checkpoint.every_n_steps", "checkpoint.keep_every"


class SaveIntervals(NamedTuple):
    """The intervals of saves in steps.

    Attributes:
        every: interval of saves; None: no such saves.
        text: length in epochs from which ``every`` was computed; None: the user gave a number of steps.
        keep_every: interval of the checkpoints that are always kept; None: no such checkpoints.
        notes: lines that explain ``keep_every``.
    """

    every: int | None
    text: str | None
    keep_every: int | None
    notes: list[str]


def check_interval(setting: str, value: object, none: str = "null") -> int | str | None:
    """Return ``value`` if it is an interval: a number of steps, a length in epochs, or None.

    Args:
        setting: name of the setting, for the message.
        value: value of the setting.
        none: description of None in the message.

    Raises:
        SettingError: if ``value`` is not an interval.
    """
    expected = f"a whole number of steps, 1 or more, {EPOCHS}, or {none}"
    if value is None:
        return None
    return check_epochs(setting, value, expected) if isinstance(value, str) else check_count(setting, value, expected)


def check_multiple(keep_every: int | str, every_n_steps: int | str) -> None:
    """Check that ``keep_every`` is a multiple of ``every_n_steps``.

    If one interval is in steps and the other interval is in epochs, nothing is checked.

    Raises:
        SettingError: if ``keep_every`` is not a multiple of ``every_n_steps``.
    """
    if isinstance(keep_every, str) != isinstance(every_n_steps, str):
        return
    longer, unit = read_epochs(keep_every) or keep_every, read_epochs(every_n_steps) or every_n_steps
    assert not isinstance(longer, str) and not isinstance(unit, str), "check_interval has accepted both"
    if longer % unit:
        nearest = max(1, round(longer / unit)) * unit
        shown = nearest if isinstance(nearest, int) else repr(show_epochs(nearest))
        raise _not_a_multiple("keep_every", repr(keep_every), repr(every_n_steps), shown)


def find_save_intervals(
    save_every: int | str | None, keep_every: int | str | None, steps_per_epoch: int | None
) -> SaveIntervals:
    """Convert the intervals of saves to steps.

    Args:
        save_every: interval of saves in steps or epochs; None: no such saves.
        keep_every: interval of the checkpoints that are always kept, in steps or epochs; None: no such checkpoints.
        steps_per_epoch: number of steps in an epoch; None: unknown.

    Raises:
        SettingError: if an interval is not a whole number of steps, if the number of steps in an epoch is needed but
            unknown, or if ``keep_every`` is not a multiple of ``save_every``.
    """
    save_every, keep_every = check_interval("save_every", save_every), check_interval("keep_every", keep_every)
    every, text = _steps(_EVERY, save_every, steps_per_epoch)
    kept, kept_text = _steps(_KEEP, keep_every, steps_per_epoch, multiple_of=every or 1)
    if every is not None and kept is not None and kept % every:
        given = (_shown(keep_every, kept), _shown(save_every, every))
        raise _not_a_multiple(_KEEP, *given, max(1, round(kept / every)) * every)
    notes = [] if kept_text is None else [f"{_KEEP}={kept_text}: every {kept:,} steps"]
    return SaveIntervals(every, text, kept, notes)


def _steps(
    setting: str, interval: int | str | None, steps_per_epoch: int | None, multiple_of: int = 1
) -> tuple[int | None, str | None]:
    """Return the interval in steps, and the text of an interval in epochs; None for an interval in steps."""
    if isinstance(interval, str):
        return whole_epochs(setting, interval, steps_per_epoch, multiple_of), interval
    return interval, None


def _shown(interval: int | str | None, num_steps: int) -> str:
    return f"{interval!r} ({num_steps} steps)" if isinstance(interval, str) else str(interval)


def _not_a_multiple(setting: str, keep_every: str, every_n_steps: str, nearest: object) -> SettingError:
    problem = f"expected a multiple of every_n_steps={every_n_steps}, because other steps may not be saved"
    return SettingError(setting, f"={keep_every}: {problem}; try {nearest}.")
