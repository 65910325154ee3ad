"""`Stopping`: the one place that decides where a fit ends before its plan does.

A signal handler and `Trainer.stop` may ask at any moment. The engine decides at three places only: at the end of a
step, between two stages, and after a validation batch. In between, `RunState` gives every reader the same answer.
"""

from __future__ import annotations

from loopwright.run_state import Interruption, RunState


class Stopping:
    """What was asked for, and the decision about it.

    Args:
        state: state of the run; `decide` alone writes ``stop_reason`` and ``is_interrupted`` into it.

    Attributes:
        is_asked: whether something was asked for that is not decided.
        exit: what a second signal ends the fit with. Python drops an exception that a signal handler raises while an
            object is finalized, so `leave_at_once` raises it again.
    """

    __slots__ = ("_is_interruption", "_reason", "_state", "exit", "is_asked")

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._reason: str | None = None
        self._is_interruption = False
        self.is_asked = False
        self.exit: BaseException | None = None

    @property
    def reason(self) -> str | None:
        """Why the present or last fit ends early, decided or not."""
        return self._reason

    def ask(self, reason: str, *, is_interruption: bool = False) -> None:
        """Ask for the end of the fit.

        Args:
            reason: shown to the user.
            is_interruption: whether the run is to be resumed; a validation is then cut short, and repeated on resume.
        """
        self._reason = reason
        self._is_interruption |= is_interruption
        self.is_asked = True

    def decide(self) -> bool:
        """Decide about what was asked for; returns whether the fit ends here."""
        if self.is_asked:
            self.is_asked = False
            self._state.stop_reason = self._reason
            self._state.is_interrupted |= self._is_interruption
        return self._state.stop_reason is not None

    def decide_in_validation(self) -> None:
        """Decide after a validation batch, or before a validation.

        Raises:
            Interruption: if the fit is interrupted, which cuts the validation short.
        """
        self.decide()
        if self._state.is_interrupted:
            raise Interruption

    def leave_at_once(self) -> None:
        """Raise `exit`, if there is one."""
        if self.exit is not None:
            raise self.exit

    def begin(self) -> None:
        """Begin a fit: nothing is asked for and nothing is decided."""
        self._reason = self._state.stop_reason = None
        self.end()

    def end(self) -> None:
        """End a fit; its `reason` stays to be read."""
        self._is_interruption = self.is_asked = self._state.is_interrupted = False
