"""`Passes`, which divides each pass over the training data into windows. A window has the micro-batches of one step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import NamedTuple, cast


class Window(NamedTuple):
    """The micro-batches of one step: ``num_micro_batches`` micro-batches of a pass, from ``first_micro_batch`` on."""

    pass_index: int
    first_micro_batch: int
    num_micro_batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """The windows of the passes of a fit. Step indices count from the start of the fit.

    Each pass is divided from its beginning, so only the last window of a pass can be smaller. The pass in which the fit
    starts is divided from the micro-batch at which the fit starts.

    Args:
        num_micro_batches: number of micro-batches in a pass; None: unknown, and the fit has one endless pass.
        grad_accum_steps: number of micro-batches in a full window, at most ``num_micro_batches``.
        start_micro_batch: index, from 0, of the micro-batch of pass 0 at which the fit starts. If this index equals
            ``num_micro_batches``, the fit uses no micro-batch of pass 0.
    """

    num_micro_batches: int | None
    grad_accum_steps: int
    start_micro_batch: int = 0

    @property
    def steps_per_pass(self) -> int | None:
        """Number of windows in a whole pass; None if the length of a pass is unknown."""
        if self.num_micro_batches is None:
            return None
        return _ceil_div(self.num_micro_batches, self.grad_accum_steps)

    @property
    def steps_in_first_pass(self) -> int | None:
        """Number of windows that the fit uses in pass 0; None if the length of a pass is unknown."""
        if self.num_micro_batches is None:
            return None
        return _ceil_div(self.num_micro_batches - self.start_micro_batch, self.grad_accum_steps)

    def at(self, step_index: int) -> Window:
        """Return the window of the step with index ``step_index``."""
        pass_index, index, first = self._locate(step_index)
        first += index * self.grad_accum_steps
        if self.num_micro_batches is None:
            return Window(pass_index, first, self.grad_accum_steps)
        return Window(pass_index, first, min(self.grad_accum_steps, self.num_micro_batches - first))

    def between(self, start_index: int, stop_index: int) -> Iterator[Window]:
        """Iterate over the windows of the steps in ``[start_index, stop_index)``.

        For speed, the iterator is a chain of iterators that are written in C. There is one such iterator for each pass,
        so a training step calls no Python code of this class.
        """
        return chain.from_iterable(self._by_pass(start_index, stop_index))

    def num_consumed(self, num_steps: int) -> int:
        """Count the micro-batches that the first ``num_steps`` steps of the fit consume."""
        if self.num_micro_batches is None:
            return num_steps * self.grad_accum_steps
        pass_index, index, first = self._locate(num_steps)
        in_pass = min(first + index * self.grad_accum_steps, self.num_micro_batches)
        return pass_index * self.num_micro_batches + in_pass - self.start_micro_batch

    def _locate(self, step_index: int) -> tuple[int, int, int]:
        """Return the pass of a step, the index of the step in the pass, and the first micro-batch used in the pass."""
        in_first, per_pass = self.steps_in_first_pass, self.steps_per_pass
        if in_first is None or per_pass is None or step_index < in_first:
            return 0, step_index, self.start_micro_batch
        pass_index, index = divmod(step_index - in_first, per_pass)
        return pass_index + 1, index, 0

    def _by_pass(self, start_index: int, stop_index: int) -> Iterator[Iterator[Window]]:
        step_index = start_index
        while step_index < stop_index:
            pass_index, first, _ = self.at(step_index)
            num_steps = stop_index - step_index
            if self.num_micro_batches is not None:
                num_steps = min(num_steps, _ceil_div(self.num_micro_batches - first, self.grad_accum_steps))
            yield self._of_pass(pass_index, first, num_steps)
            step_index += num_steps

    def _of_pass(self, pass_index: int, first: int, num_steps: int) -> Iterator[Window]:
        """Iterate over ``num_steps`` windows of one pass, from the micro-batch ``first`` on."""
        size = self.grad_accum_steps
        end = first + num_steps * size
        if self.num_micro_batches is None or end <= self.num_micro_batches:
            return _full_windows(pass_index, range(first, end, size), size)
        last = end - size
        short = Window(pass_index, last, self.num_micro_batches - last)
        return chain(_full_windows(pass_index, range(first, last, size), size), (short,))


def _full_windows(pass_index: int, firsts: range, size: int) -> Iterator[Window]:
    # Window(...) is a Python call for each step. `map` calls tuple.__new__ without a Python call.
    rows = zip(repeat(pass_index), firsts, repeat(size))
    return cast("Iterator[Window]", map(tuple.__new__, repeat(Window), rows))


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
