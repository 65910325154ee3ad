"""Learning-rate schedules over the whole of a run: each a pure function of the step, and the rate in front of it.

Each has a linear warm-up of *W* steps: step *t* of *T*, counted from 0, is made with *(t + 1) / (W + 1)* of the
optimizer's own rate for *t < W*, so that no step is lost to a rate of 0. The schedule's own shape follows, and after
the last step stays where it ended. What is returned is torch's `LambdaLR`, stepped once after each step; its state is
where it is and not its shape, so that a run may be resumed with a later end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from loopwright.errors import SettingError
from loopwright.optim.schedule_lengths import (
    check_fraction,
    check_total,
    count_milestones,
    count_steps,
    count_warmup,
    exact_steps,
)

_Shape = Callable[[int, int], float]  # (steps since the warm-up, steps of the run after the warm-up) -> factor


def constant(optimizer: Optimizer, total_steps: int, warmup_steps: int | float = 0) -> LambdaLR:
    """Make a scheduler that warms the learning rate up and then leaves it.

    Args:
        optimizer: whose learning rates are scaled, each parameter group's own.
        total_steps: steps of the run, *T*; the trainer gives it where a configuration does not.
        warmup_steps: *W*, a whole number of steps, or a fraction in (0, 1) of ``total_steps``, rounded up.

    Raises:
        SettingError: for a warm-up longer than the run, and values outside these ranges.
    """
    return _schedule(optimizer, total_steps, warmup_steps, lambda step, length: 1.0)


def linear(
    optimizer: Optimizer, total_steps: int, warmup_steps: int | float = 0, final_fraction: float = 0.0
) -> LambdaLR:
    """Make a scheduler that warms the learning rate up and then lowers it in equal steps to the end of the run.

    After the warm-up the factor is *f + (1 - f) (T - t) / (T - W)*.

    Args:
        optimizer: as for `constant`, like the next two.
        total_steps: *T*.
        warmup_steps: *W*.
        final_fraction: *f*, what is left of the learning rate at the end, in [0, 1].

    Raises:
        SettingError: for a warm-up longer than the run, and values outside these ranges.
    """
    final = check_fraction("final_fraction", final_fraction)

    def shape(step: int, length: int) -> float:
        return final + (1 - final) * _left(step, length)

    return _schedule(optimizer, total_steps, warmup_steps, shape)


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warmup_steps: int | float = 0, final_fraction: float = 0.0
) -> LambdaLR:
    """Make a scheduler that warms the learning rate up and then anneals it to the end of the run.

    After the warm-up the factor is *f + (1 - f) (1 + cos(pi (t - W) / (T - W))) / 2*.

    Source: I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, section 3,
    equation 5, once and without restarts, after a linear warm-up whose first step is not 0.

    Args:
        optimizer: as for `constant`, like the next two.
        total_steps: *T*.
        warmup_steps: *W*.
        final_fraction: *f*, what is left of the learning rate at the end, in [0, 1].

    Raises:
        SettingError: for a warm-up longer than the run, and values outside these ranges.
    """
    final = check_fraction("final_fraction", final_fraction)

    def shape(step: int, length: int) -> float:
        progress = step / length if length else 1.0
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return _schedule(optimizer, total_steps, warmup_steps, shape)


def warmup_stable_decay(
    optimizer: Optimizer,
    total_steps: int,
    warmup_steps: int | float = 0,
    decay_steps: int | float = 0.2,
    final_fraction: float = 0.0,
) -> LambdaLR:
    """Make a scheduler that warms the learning rate up, keeps it, and lowers it in equal steps at the end of the run.

    In the last *D* steps the factor is *f + (1 - f) (T - t) / D*. A run that is made longer before the decay begins
    has taken no step too many: that is what this schedule is for.

    Source: S. Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training
    Strategies", 2024, section 4, equation 1, with the linear decay of A. Hägele et al., "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS 2024, section 3, equation 1.

    Args:
        optimizer: as for `constant`, like the next two.
        total_steps: *T*.
        warmup_steps: *W*.
        decay_steps: *D*, a whole number of steps, or a fraction in (0, 1) of ``total_steps``, rounded up; where
            rounding alone leaves no room for both, the decay is a step shorter.
        final_fraction: *f*, what is left of the learning rate at the end, in [0, 1].

    Raises:
        SettingError: where warm-up and decay are longer than the run, and for values outside these ranges.
    """
    final = check_fraction("final_fraction", final_fraction)
    num_warmup = count_warmup(warmup_steps, total_steps)
    num_decay = count_steps("decay_steps", decay_steps, total_steps)
    exact = exact_steps("warmup_steps", warmup_steps, total_steps) + exact_steps(
        "decay_steps", decay_steps, total_steps
    )
    if exact > total_steps > 0:
        raise SettingError(
            "decay_steps",
            f"={decay_steps} after warmup_steps={warmup_steps}: expected both within the {total_steps} steps of the "
            "run; fractions whose sum is at most 1 go with any length.",
        )

    def shape(step: int, length: int) -> float:
        num_falling = min(num_decay, length)
        since = step - (length - num_falling)
        return final + (1 - final) * _left(since, num_falling) if since >= 0 else 1.0

    return _schedule(optimizer, total_steps, num_warmup, shape)


def inverse_sqrt(optimizer: Optimizer, total_steps: int, warmup_steps: int | float = 0) -> LambdaLR:
    """Make a scheduler that warms the learning rate up and then lowers it with the inverse square root of the step.

    After the warm-up the factor is *sqrt((W + 1) / (t + 1))*, which does not depend on the end of the run.

    Source: A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 5.3, equation 3, with its
    ``step_num`` *t + 1* and its ``warmup_steps`` *W + 1*, scaled to reach 1 at the end of the warm-up.

    Args:
        optimizer: as for `constant`, like the next two.
        total_steps: *T*.
        warmup_steps: *W*; without one the rate falls from the first step on.

    Raises:
        SettingError: for a warm-up longer than the run, and values outside these ranges.
    """
    start = count_warmup(warmup_steps, total_steps) + 1
    return _schedule(optimizer, total_steps, warmup_steps, lambda step, length: math.sqrt(start / (start + step)))


def step_decay(
    optimizer: Optimizer,
    total_steps: int,
    milestones: Sequence[int | float] = (0.5, 0.75),
    factor: float = 0.1,
    warmup_steps: int | float = 0,
) -> LambdaLR:
    """Make a scheduler that warms the learning rate up and multiplies it by ``factor`` at each milestone.

    Args:
        optimizer: as for `constant`, like the next.
        total_steps: *T*.
        milestones: steps of the run, the first step with the lower rate each; whole numbers, or fractions in (0, 1)
            of ``total_steps``, rounded up.
        factor: in [0, 1].
        warmup_steps: *W*, as for `constant`.

    Raises:
        SettingError: for milestones that the run does not reach or that lie in the warm-up, and for values outside
            these ranges.
    """
    num_warmup = count_warmup(warmup_steps, total_steps)
    falls = [milestone - num_warmup for milestone in count_milestones(milestones, num_warmup, total_steps)]
    check_fraction("factor", factor)

    def shape(step: int, length: int) -> float:
        return float(factor ** sum(fall <= step for fall in falls))

    return _schedule(optimizer, total_steps, num_warmup, shape)


def _schedule(optimizer: Optimizer, total_steps: int, warmup_steps: int | float, shape: _Shape) -> LambdaLR:
    """The warm-up, and ``shape`` after it."""
    check_total(total_steps)
    num_warmup = count_warmup(warmup_steps, total_steps)
    length = max(0, total_steps - num_warmup)

    # A function, not an object: `LambdaLR` would put an object's attributes, and so the end of the run, into its state.
    def factor(num_steps_completed: int) -> float:
        if num_steps_completed < num_warmup:
            return (num_steps_completed + 1) / (num_warmup + 1)
        return shape(min(num_steps_completed - num_warmup, length), length)

    return LambdaLR(optimizer, factor)


def _left(step: int, length: int) -> float:
    """The fraction of ``length`` that is left at ``step``."""
    return (length - step) / length if length else 0.0
