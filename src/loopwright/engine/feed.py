"""`Feed`: training data, read on from where a run is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loopwright.engine.user_errors import note_reading
from loopwright.errors import DataError
from loopwright.protocols import BatchSource
from loopwright.run_state import RunState

_END = object()


class Feed:
    """Hands out training micro-batches and keeps the position of a run.

    Between fits it lives on, so that a dataloader that can only be read forward is not read twice.

    Args:
        source: the training dataloader.
        state: the run's counters; the position in them is where reading begins.
    """

    def __init__(self, source: BatchSource, state: RunState) -> None:
        self._source = source
        self._state = state
        self._num_batches = source.num_batches
        self._batches: Iterator[Any] | None = None
        self._ahead: Any = _END

    @property
    def source(self) -> BatchSource:
        """What it reads from."""
        return self._source

    @property
    def num_batches(self) -> int | None:
        """Micro-batches of a pass; None where that is unknown."""
        return self._num_batches

    def take(self) -> Any:
        """The next micro-batch; the position moves over it, at a pass's end to the next pass.

        Raises:
            DataError: if the dataloader ends before, or goes on after, its length; or yields nothing at all. What it
                raises itself gets a note.
        """
        state = self._state
        try:
            if self._batches is None:
                self._batches = self._source.read(state.pass_index, state.micro_batch_index)
            batch, self._ahead = self._ahead, _END
            if batch is _END:
                batch = next(self._batches, _END)
                if batch is _END:
                    batch = self._first_of_next_pass()
            state.micro_batch_index += 1
            if state.micro_batch_index == self._num_batches:
                self._end_pass()
        except Exception as error:
            self._note(error)
            raise
        return batch

    def has_more(self) -> bool:
        """Whether this pass goes on, for a window that has begun; looks ahead where no length says so."""
        if self._num_batches is not None:
            return True
        if self._ahead is _END and self._batches is not None:
            try:
                self._ahead = next(self._batches, _END)
            except Exception as error:
                self._note(error)
                raise
            if self._ahead is _END:  # known now, and so part of the position: a resume must not look for it again
                self._next_pass()
        return self._ahead is not _END

    def rewind(self) -> None:
        """Go back to where the present step began; what can only be read once goes on where it is."""
        if not self._source.is_one_shot:
            self._state.pass_index, self._state.micro_batch_index = self._state.window_start
            self._batches, self._ahead = None, _END

    @property
    def is_sought(self) -> bool:
        """Whether reading may begin anywhere at no cost."""
        return self._source.is_sought

    def rest(self) -> None:
        """Training pauses: where reading may begin anywhere, let go of the dataloader's iterator and its workers."""
        if self._source.is_sought:
            self._batches, self._ahead = None, _END

    def _note(self, error: Exception) -> None:
        state = self._state
        note_reading(error, "training dataloader", f"micro-batch {state.micro_batch_index} of pass {state.pass_index}")

    def _first_of_next_pass(self) -> Any:
        state = self._state
        if self._num_batches is not None:
            raise DataError(
                f"The training dataloader ended after {state.micro_batch_index} micro-batches of pass "
                f"{state.pass_index}; its length says {self._num_batches}."
            )
        if state.micro_batch_index:
            self._next_pass()
        self._batches = self._source.read(state.pass_index, 0)
        batch = next(self._batches, _END)
        if batch is _END:
            remedy = "give one that can be iterated over again, or fewer steps" if state.pass_index else "give it data"
            raise DataError(
                f"The training dataloader yields nothing in pass {state.pass_index}: "
                f"expected at least one micro-batch; {remedy}."
            )
        return batch

    def _end_pass(self) -> None:
        state = self._state
        if self._batches is not None and next(self._batches, _END) is not _END:
            raise DataError(
                f"The training dataloader goes on after {state.micro_batch_index} micro-batches of pass "
                f"{state.pass_index}; its length says no more."
            )
        self._next_pass()

    def _next_pass(self) -> None:
        self._batches = None
        self._state.pass_index += 1
        self._state.micro_batch_index = 0
