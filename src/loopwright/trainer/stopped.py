"""`nothing_to_train`, which builds the message about a fit that was stopped before its first step."""

from __future__ import annotations

from loopwright.hooks import Callback
from loopwright.protocols import StopsAgain


def nothing_to_train(by: str | None, callback: Callback | None, reason: str, step: int) -> str:
    """Return a message with the reason for the stop, and with the settings with which a resume would continue training.

    Args:
        by: name of the callback that stopped the fit; None: no callback stopped the fit.
        callback: callback with the name ``by``; None: no such callback.
        reason: reason for the stop.
        step: ``global_step`` of the run.
    """
    what = "it was stopped" if by is None else f"{by} stopped this run"
    text = f"Nothing to train: {what} at step {step:,} ({reason})."
    if not isinstance(callback, StopsAgain):
        return text if by is None else f"{text} {by} decides whether a resume trains further."
    settings = ", ".join(f"{name}={value}" for name, value in callback.to_continue.items())
    if not settings:
        return f"{text} A resume cannot train further; init_from starts a new run with the weights."
    return f"{text} To continue, resume with {settings} in {by}."
