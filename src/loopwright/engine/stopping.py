"""`Stopping`: decides whether a fit ends before the end of its plan.

A signal handler or `Trainer.stop` may request a stop at any time. The engine decides about the request only at the end
of a step, between two stages, and after a validation batch. So ``stop_reason`` in `RunState` is constant within a step.
"""

from __future__ import annotations

from loopwright.run_state import Interruption, RunState


class Stopping:
    """Stores a request to stop the fit. The request takes effect when the engine calls `decide`.

    Args:
        state: state of the run. Only this class writes its ``stop_reason`` and ``is_interrupted``.

    Attributes:
        is_asked: whether there is a request that is not decided yet.
        exit: exception with which a second signal ends the fit; None: there was no second signal. Python drops an
            exception that a signal handler raises while an object is finalized, so `leave_at_once` raises it again.
    """

    __slots__ = ("_by", "_is_interruption", "_reason", "_state", "exit", "is_asked")

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._reason: str | None = None
        self._by: str | None = None
        self._is_interruption = False
        self.is_asked = False
        self.exit: BaseException | None = None

    @property
    def reason(self) -> str | None:
        """Reason of the request in the current or last fit; None if there was no request."""
        return self._reason

    @property
    def by(self) -> str | None:
        """Name of the callback that requested the stop; None if no callback requested it, or without a request."""
        return self._by

    def ask(self, reason: str, *, by: str | None = None, is_interruption: bool = False) -> None:
        """Request the end of the fit.

        Args:
            reason: reason for the stop, which is shown to the user.
            by: name of the callback that makes the request; None: no callback makes the request.
            is_interruption: whether a later process will resume the run. If True, a validation in progress is aborted,
                and the resumed run repeats this validation.
        """
        self._reason, self._by = reason, by
        self._is_interruption |= is_interruption
        self.is_asked = True

    def decide(self) -> bool:
        """Move a request to stop into the state of the run. Return whether the fit ends here."""
        if self.is_asked:
            self.is_asked = False
            self._state.stop_reason = self._reason
            self._state.is_interrupted |= self._is_interruption
        return self._state.stop_reason is not None

    def decide_in_validation(self) -> None:
        """Call `decide` before a validation, or after one of its batches.

        Raises:
            Interruption: if the fit is interrupted. This exception aborts the validation.
        """
        self.decide()
        if self._state.is_interrupted:
            raise Interruption

    def leave_at_once(self) -> None:
        """Raise the exception `exit`, unless it is None."""
        if self.exit is not None:
            raise self.exit

    def begin(self) -> None:
        """Remove the request and the stop reason of the last fit. Called at the beginning of a fit."""
        self._reason = self._by = self._state.stop_reason = None
        self.end()

    def end(self) -> None:
        """End a fit: reset its request. The properties `reason` and `by` keep their values."""
        self._is_interruption = self.is_asked = self._state.is_interrupted = False
