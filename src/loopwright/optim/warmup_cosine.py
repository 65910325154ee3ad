"""`warmup_cosine`: a learning rate that rises linearly and then falls along half a cosine."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from loopwright.errors import SettingError, refuse, refuse_type


def warmup_cosine(
    optimizer: Optimizer,
    total_steps: int,
    warmup_steps: int | float = 0,
    final_fraction: float = 0.0,
) -> LambdaLR:
    """Make a scheduler that warms the learning rate up and then anneals it to the end of the run.

    Step *t* of *T*, counted from 0, is made with the optimizer's own rate times
    *(t + 1) / (W + 1)* for *t < W*, then *f + (1 - f) (1 + cos(pi (t - W) / (T - W))) / 2*, and *f* from *T* on.

    Source: I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, section 3,
    equation 5, once and without restarts, after a linear warm-up whose first step is not 0.

    Args:
        optimizer: whose learning rates are scaled, each parameter group's own.
        total_steps: steps of the run, *T*; the trainer gives it where a configuration does not.
        warmup_steps: *W*, a whole number of steps, or a fraction in (0, 1) of ``total_steps``, rounded up.
        final_fraction: *f*, what is left of the learning rate at the end, in [0, 1].

    Returns:
        A scheduler that is stepped once after each step. Its state is where it is, not its shape, so that a run may
        be resumed with a later end.

    Raises:
        SettingError: for a warm-up longer than the run, and values outside these ranges.
    """
    if isinstance(total_steps, bool) or not isinstance(total_steps, int):
        raise refuse_type("total_steps", total_steps, "a whole number, 0 or more")
    if total_steps < 0:
        raise refuse("total_steps", total_steps, "a whole number, 0 or more")
    if isinstance(final_fraction, bool) or not isinstance(final_fraction, int | float):
        raise refuse_type("final_fraction", final_fraction, "a fraction in [0, 1]")
    if not 0 <= final_fraction <= 1:
        raise refuse("final_fraction", final_fraction, "a fraction in [0, 1]")
    num_warmup = _count_warmup(warmup_steps, total_steps)

    def factor(num_steps_completed: int) -> float:
        if num_steps_completed < num_warmup:
            return (num_steps_completed + 1) / (num_warmup + 1)
        if num_steps_completed >= total_steps:
            return float(final_fraction)
        progress = (num_steps_completed - num_warmup) / (total_steps - num_warmup)
        return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def _count_warmup(warmup_steps: int | float, total_steps: int) -> int:
    expected = "a whole number of steps, 0 or more, or a fraction in (0, 1) of the run"
    if isinstance(warmup_steps, bool) or not isinstance(warmup_steps, int | float):
        raise refuse_type("warmup_steps", warmup_steps, expected)
    if isinstance(warmup_steps, float):
        if not 0 < warmup_steps < 1 and warmup_steps != 0:
            raise refuse("warmup_steps", warmup_steps, expected)
        return math.ceil(warmup_steps * total_steps)
    if warmup_steps < 0:
        raise refuse("warmup_steps", warmup_steps, expected)
    if warmup_steps > total_steps > 0:
        raise SettingError("warmup_steps", f"={warmup_steps}: expected at most the {total_steps} steps of the run.")
    return warmup_steps
