"""`Feed`: reads the training micro-batches, beginning at the position of the run in the dataloader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loopwright.engine.clock import TrainClock
from loopwright.engine.user_errors import note_reading
from loopwright.errors import DataError
from loopwright.protocols import BatchSource
from loopwright.run_state import RunState

_END = object()


class Feed:
    """Reads the training micro-batches, and advances the position in `RunState`.

    If the dataloader cannot start at a given micro-batch, the next fit uses this `Feed` again. A new `Feed` would have
    to read all earlier micro-batches of the pass again.

    Args:
        source: source of the training micro-batches.
        state: counters of the run, with the position of the next micro-batch.

    Attributes:
        index: index of the last micro-batch that `take` returned, counted from 0 in its pass.
    """

    def __init__(self, source: BatchSource, state: RunState) -> None:
        self._source = source
        self._state = state
        self._num_batches = source.num_batches
        self._batches: Iterator[Any] | None = None
        self._ahead: Any = _END
        self._clock: TrainClock | None = None
        self.index = 0

    @property
    def source(self) -> BatchSource:
        """The source of the micro-batches."""
        return self._source

    @property
    def num_batches(self) -> int | None:
        """Number of micro-batches in a pass; None if unknown."""
        return self._num_batches

    def take(self) -> Any:
        """Return the next micro-batch, and advance the position. A new pass begins after the last micro-batch.

        If the dataloader raises an exception, a note on the exception names the micro-batch.

        Raises:
            DataError: if a pass is empty, or has fewer or more micro-batches than the length of the dataloader.
        """
        state = self._state
        try:
            if self._batches is None:
                self._batches = self._open(state.pass_index, state.micro_batch_index)
            batch, self._ahead = self._ahead, _END
            if batch is _END:
                batch = next(self._batches, _END)
                if batch is _END:
                    batch = self._first_of_next_pass()
            self.index = state.micro_batch_index
            state.micro_batch_index += 1
            if state.micro_batch_index == self._num_batches:
                self._end_pass()
        except Exception as error:
            self._note(error)
            raise
        return batch

    def has_more(self) -> bool:
        """Return whether this pass has another micro-batch for the current window.

        If the length of the dataloader is known, the result is True, because the windows of a plan end with the pass.
        If the length is unknown, this method reads one micro-batch ahead.
        """
        if self._num_batches is not None:
            return True
        if self._ahead is _END and self._batches is not None:
            try:
                self._ahead = next(self._batches, _END)
            except Exception as error:
                self._note(error)
                raise
            if self._ahead is _END:  # advance now, so that a checkpoint contains the start of the next pass
                self._next_pass()
        return self._ahead is not _END

    def rewind(self) -> None:
        """Set the position back to the first micro-batch of the current step. A one-shot source is not changed."""
        if not self._source.is_one_shot:
            self._state.pass_index, self._state.micro_batch_index = self._state.window_start
            self._batches, self._ahead = None, _END

    @property
    def is_sought(self) -> bool:
        """Whether reading can start at any micro-batch of a pass without reading the earlier micro-batches."""
        return self._source.is_sought

    def rest(self) -> None:
        """Release the iterator of the dataloader, and its workers, while training pauses.

        The iterator is kept if reading cannot start at any micro-batch; see `is_sought`.
        """
        if self._source.is_sought:
            self._batches, self._ahead = None, _END

    def time_reads(self, clock: TrainClock) -> None:
        """Add the time of each read to ``clock.data_seconds``. The iterator that is open now is not timed."""
        self._clock = clock

    def _open(self, pass_index: int, first: int) -> Iterator[Any]:
        batches = self._source.read(pass_index, first)
        return batches if self._clock is None else self._clock.timed(batches)

    def _note(self, error: Exception) -> None:
        state = self._state
        note_reading(error, "training dataloader", f"micro-batch {state.micro_batch_index} of pass {state.pass_index}")

    def _first_of_next_pass(self) -> Any:
        state = self._state
        if self._num_batches is not None:
            raise DataError(
                f"The training dataloader ended after {state.micro_batch_index} micro-batches of pass "
                f"{state.pass_index}; its length is {self._num_batches}."
            )
        if state.micro_batch_index:
            self._next_pass()
        self._batches = self._open(state.pass_index, 0)
        batch = next(self._batches, _END)
        if batch is _END:
            remedy = "; use a dataloader that can be iterated over again, or train fewer steps"
            raise DataError(
                f"The training dataloader is empty in pass {state.pass_index}: "
                f"expected at least one micro-batch{remedy if state.pass_index else ''}."
            )
        return batch

    def _end_pass(self) -> None:
        state = self._state
        if self._batches is not None and next(self._batches, _END) is not _END:
            raise DataError(
                f"The training dataloader has more than {state.micro_batch_index} micro-batches in pass "
                f"{state.pass_index}; its length is {self._num_batches}."
            )
        self._next_pass()

    def _next_pass(self) -> None:
        self._batches = None
        self._state.pass_index += 1
        self._state.micro_batch_index = 0
