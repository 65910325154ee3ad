"""Passes: how they are cut into windows, the micro-batches that make up a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import NamedTuple, cast


class Window(NamedTuple):
    """The micro-batches of one step, all of one pass: ``num_micro_batches`` of them from ``first_micro_batch``."""

    pass_index: int
    first_micro_batch: int
    num_micro_batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """How the passes of a fit are cut into windows; steps are counted from the fit's start here.

    Every pass is cut anew from its beginning, so that only its last window can be smaller; the pass in which
    the fit starts is cut from the micro-batch at which the fit starts.

    Args:
        num_micro_batches: micro-batches of a pass; None: unknown, and then there is one endless pass.
        grad_accum_steps: micro-batches of a full window, at most ``num_micro_batches``.
        start_micro_batch: where in pass 0 the fit starts. ``num_micro_batches``: pass 0 is used up.
    """

    num_micro_batches: int | None
    grad_accum_steps: int
    start_micro_batch: int = 0

    @property
    def steps_per_pass(self) -> int | None:
        """Windows of a whole pass; None where its length is unknown."""
        if self.num_micro_batches is None:
            return None
        return _ceil_div(self.num_micro_batches, self.grad_accum_steps)

    @property
    def steps_in_first_pass(self) -> int | None:
        """Windows of what is left of pass 0; None where its length is unknown."""
        if self.num_micro_batches is None:
            return None
        return _ceil_div(self.num_micro_batches - self.start_micro_batch, self.grad_accum_steps)

    def at(self, step_index: int) -> Window:
        """The window of the step with this index, counted from the fit's start."""
        pass_index, index, first = self._locate(step_index)
        first += index * self.grad_accum_steps
        if self.num_micro_batches is None:
            return Window(pass_index, first, self.grad_accum_steps)
        return Window(pass_index, first, min(self.grad_accum_steps, self.num_micro_batches - first))

    def between(self, start_index: int, stop_index: int) -> Iterator[Window]:
        """The windows of the steps in ``[start_index, stop_index)``, one after the other.

        This feeds the training loop, so a step costs no call of Python code here: whole passes of windows come
        out of iterators written in C.
        """
        return chain.from_iterable(self._by_pass(start_index, stop_index))

    def num_consumed(self, num_steps: int) -> int:
        """Micro-batches that the first ``num_steps`` steps of the fit consume."""
        if self.num_micro_batches is None:
            return num_steps * self.grad_accum_steps
        pass_index, index, first = self._locate(num_steps)
        in_pass = min(first + index * self.grad_accum_steps, self.num_micro_batches)
        return pass_index * self.num_micro_batches + in_pass - self.start_micro_batch

    def _locate(self, step_index: int) -> tuple[int, int, int]:
        """(pass, index of the step in that pass, micro-batch at which the cutting of that pass begins)."""
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
        """``num_steps`` windows of one pass, from the micro-batch ``first`` on."""
        size = self.grad_accum_steps
        end = first + num_steps * size
        if self.num_micro_batches is None or end <= self.num_micro_batches:
            return _full_windows(pass_index, range(first, end, size), size)
        last = end - size
        short = Window(pass_index, last, self.num_micro_batches - last)
        return chain(_full_windows(pass_index, range(first, last, size), size), (short,))


def _full_windows(pass_index: int, firsts: range, size: int) -> Iterator[Window]:
    # Window(...) would be a Python call per step; tuple.__new__, called from within map, is none.
    rows = zip(repeat(pass_index), firsts, repeat(size))
    return cast("Iterator[Window]", map(tuple.__new__, repeat(Window), rows))


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
