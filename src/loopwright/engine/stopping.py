"""`Stopping`: decides whether a fit ends before the end of its plan.

A signal handler or `Trainer.stop` may request a stop at any time. The engine decides about the request only at the end
of a step, between two stages, and after a validation batch. Therefore ``stop_reason`` in `RunState` is constant within
a step.

If several processes train together, a request in one process ends the fit in all processes after the same step.
"""

from __future__ import annotations

from loopwright.engine.gathering import gather_values
from loopwright.protocols import Ranks
from loopwright.run_state import Interruption, RunState


class Stopping:
    """Stores a request to stop the fit. The request takes effect when the engine calls `decide`.

    Args:
        state: state of the run. Only this class writes its ``stop_reason`` and ``is_interrupted``.
        ranks: processes that train together; None: this process trains alone.

    Attributes:
        is_wanted: whether this process has a request that `decide` has not processed yet.
        is_asked: whether any process has a request that `decide` has not processed yet. If several processes train
            together, the value is set only when the processes exchange their requests.
        exit: exception with which a second signal ends the fit; None: there was no second signal. Python drops an
            exception that a signal handler raises while an object is finalized, so `leave_at_once` raises it again.
    """

    __slots__ = ("_by", "_is_interruption", "_ranks", "_reason", "_state", "exit", "is_asked", "is_wanted")

    def __init__(self, state: RunState, ranks: Ranks | None = None) -> None:
        self._state = state
        self._ranks = ranks if ranks is not None and ranks.world_size > 1 else None
        self._reason: str | None = None
        self._by: str | None = None
        self._is_interruption = False
        self.is_asked = self.is_wanted = False
        self.exit: BaseException | None = None

    @property
    def reason(self) -> str | None:
        """Reason of the request in the current or last fit; None if there was no request."""
        return self._reason

    @property
    def by(self) -> str | None:
        """Name of the callback that made the request; None if there is no request, or no callback made it."""
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
        self.is_wanted = True
        if self._ranks is None:
            self.is_asked = True

    def agree(self) -> None:
        """Exchange the requests of all processes. Every process must call this method.

        In a run of one process, this method does nothing. If several processes have a request, the reason of the
        process with the lowest rank is used.
        """
        if self._ranks is None:
            return
        own = [self._reason, self._by, self._is_interruption] if self.is_wanted else None
        found = gather_values(self._ranks, own)
        requests = [each for each in found if each is not None]
        self.is_asked = bool(requests)
        if requests:
            self._reason, self._by, _ = requests[0]
            self._is_interruption = any(is_interruption for _, _, is_interruption in requests)

    def decide(self) -> bool:
        """Move a request to stop into the state of the run. Return whether the fit ends here."""
        if self._ranks is not None:
            self.agree()
        if self.is_asked:
            self.is_asked = self.is_wanted = False
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
        self._is_interruption = self.is_asked = self.is_wanted = self._state.is_interrupted = False
