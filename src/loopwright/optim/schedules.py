"""Learning-rate schedules over a whole run.

Each schedule multiplies the learning rate by a factor. The factor is computed from the step number alone.

A length is an integer number of steps, a fraction in (0, 1) of the run, or a text such as ``"2 epochs"``. A fraction
of a step is rounded up.

Steps *t* are counted from 0 in a run of *T* steps. Each schedule starts with a linear warm-up of *W* steps: for
*t < W* the factor is *(t + 1) / (W + 1)*. The first factor is not 0, because a step with a learning rate of 0 does not
change the weights. After the warm-up the factor follows the formula of the schedule. After step *T* the factor
is constant.

Each function returns torch's `LambdaLR`, whose ``step`` must be called once after each optimizer step. The state of the
`LambdaLR` contains the step number but not the shape of the schedule, so a run can be resumed with a larger *T*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from loopwright.errors import SettingError
from loopwright.optim.schedule_lengths import (
    Length,
    check_fraction,
    count_milestones,
    count_steps,
    count_warmup,
    exact_steps,
)

_Shape = Callable[[int, int], float]  # (steps since the warm-up, steps of the run after the warm-up) -> factor


def constant(
    optimizer: Optimizer, total_steps: int, warmup_steps: Length = 0, steps_per_epoch: int | None = None
) -> LambdaLR:
    """Build a schedule with a warm-up and a constant learning rate.

    Args:
        optimizer: optimizer whose learning rates are scaled, in every parameter group.
        total_steps: number of steps of the run, *T*; if a configuration omits this argument, the trainer supplies it.
        warmup_steps: length of the warm-up, *W*: an integer number of steps, a fraction in (0, 1) of
            ``total_steps``, or a text such as ``"2 epochs"``; rounded up to whole steps.
        steps_per_epoch: number of steps in an epoch, for lengths in epochs; the trainer supplies it. None: unknown.

    Raises:
        SettingError: if the warm-up is longer than the run, or a value is outside its range.
    """
    num_warmup = count_warmup(warmup_steps, total_steps, steps_per_epoch)
    return _schedule(optimizer, total_steps, num_warmup, lambda step, length: 1.0)


def linear(
    optimizer: Optimizer,
    total_steps: int,
    warmup_steps: Length = 0,
    final_fraction: float = 0.0,
    steps_per_epoch: int | None = None,
) -> LambdaLR:
    """Build a schedule with a warm-up and a linear decay until the end of the run.

    After the warm-up the factor is *f + (1 - f) (T - t) / (T - W)*.

    Args:
        optimizer: optimizer whose learning rates are scaled.
        total_steps: number of steps of the run, *T*, as for `constant`.
        warmup_steps: length of the warm-up, *W*, as for `constant`.
        final_fraction: factor at the end of the run, *f*, in [0, 1].
        steps_per_epoch: number of steps in an epoch, as for `constant`.

    Raises:
        SettingError: if the warm-up is longer than the run, or a value is outside its range.
    """
    final = check_fraction("final_fraction", final_fraction)

    def shape(step: int, length: int) -> float:
        return final + (1 - final) * _left(step, length)

    return _schedule(optimizer, total_steps, count_warmup(warmup_steps, total_steps, steps_per_epoch), shape)


def warmup_cosine(
    optimizer: Optimizer,
    total_steps: int,
    warmup_steps: Length = 0,
    final_fraction: float = 0.0,
    steps_per_epoch: int | None = None,
) -> LambdaLR:
    """Build a schedule with a warm-up and a cosine decay until the end of the run.

    After the warm-up the factor is *f + (1 - f) (1 + cos(pi (t - W) / (T - W))) / 2*.

    Source: I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, section 3,
    equation 5. Differences: there are no restarts, and a linear warm-up with a non-zero first factor comes first.

    Args:
        optimizer: optimizer whose learning rates are scaled.
        total_steps: number of steps of the run, *T*, as for `constant`.
        warmup_steps: length of the warm-up, *W*, as for `constant`.
        final_fraction: factor at the end of the run, *f*, in [0, 1].
        steps_per_epoch: number of steps in an epoch, as for `constant`.

    Raises:
        SettingError: if the warm-up is longer than the run, or a value is outside its range.
    """
    final = check_fraction("final_fraction", final_fraction)

    def shape(step: int, length: int) -> float:
        progress = step / length if length else 1.0
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return _schedule(optimizer, total_steps, count_warmup(warmup_steps, total_steps, steps_per_epoch), shape)


def warmup_stable_decay(
    optimizer: Optimizer,
    total_steps: int,
    warmup_steps: Length = 0,
    decay_steps: Length = 0.2,
    final_fraction: float = 0.0,
    steps_per_epoch: int | None = None,
) -> LambdaLR:
    """Build a schedule with a warm-up, a constant learning rate, and a linear decay at the end of the run.

    In the last *D* steps the factor is *f + (1 - f) (T - t) / D*. If ``warmup_steps`` is an integer, the factor before
    the decay does not depend on *T*, so a run can be extended without repeating these steps.

    Source: S. Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training
    Strategies", 2024, section 4, equation 1, with the linear decay of A. Hägele et al., "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS 2024, section 3, equation 1.

    Args:
        optimizer: optimizer whose learning rates are scaled.
        total_steps: number of steps of the run, *T*, as for `constant`.
        warmup_steps: length of the warm-up, *W*, as for `constant`.
        decay_steps: length of the decay, *D*, in the same forms as ``warmup_steps``. If warm-up and decay together
            exceed the run only because both were rounded up, the decay is shortened by one step.
        final_fraction: factor at the end of the run, *f*, in [0, 1].
        steps_per_epoch: number of steps in an epoch, as for `constant`.

    Raises:
        SettingError: if warm-up and decay together are longer than the run, or a value is outside its range.
    """
    final = check_fraction("final_fraction", final_fraction)
    num_warmup = count_warmup(warmup_steps, total_steps, steps_per_epoch)
    num_decay = count_steps("decay_steps", decay_steps, total_steps, steps_per_epoch)
    lengths = (("warmup_steps", warmup_steps), ("decay_steps", decay_steps))
    exact = sum(exact_steps(name, length, total_steps, steps_per_epoch) for name, length in lengths)
    if exact > total_steps > 0:
        raise SettingError(
            "decay_steps",
            f"={decay_steps!r} after warmup_steps={warmup_steps!r}: expected at most {total_steps} steps for both, the "
            "length of the run; fractions whose sum is at most 1 fit a run of any length.",
        )

    def shape(step: int, length: int) -> float:
        decay_length = min(num_decay, length)
        since = step - (length - decay_length)
        return final + (1 - final) * _left(since, decay_length) if since >= 0 else 1.0

    return _schedule(optimizer, total_steps, num_warmup, shape)


def inverse_sqrt(
    optimizer: Optimizer, total_steps: int, warmup_steps: Length = 0, steps_per_epoch: int | None = None
) -> LambdaLR:
    """Build a schedule with a warm-up and a decay proportional to the inverse square root of the step.

    After the warm-up the factor is *sqrt((W + 1) / (t + 1))*, which does not depend on the length of the run.

    Source: A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 5.3, equation 3. In this
    paper, ``step_num`` is *t + 1* and ``warmup_steps`` is *W + 1*. Difference: the factor reaches 1 after the warm-up.

    Args:
        optimizer: optimizer whose learning rates are scaled.
        total_steps: number of steps of the run, *T*, as for `constant`.
        warmup_steps: length of the warm-up, *W*, as for `constant`; with 0 the learning rate decays from the first
            step on.
        steps_per_epoch: number of steps in an epoch, as for `constant`.

    Raises:
        SettingError: if the warm-up is longer than the run, or a value is outside its range.
    """
    num_warmup = count_warmup(warmup_steps, total_steps, steps_per_epoch)
    start = num_warmup + 1
    return _schedule(optimizer, total_steps, num_warmup, lambda step, length: math.sqrt(start / (start + step)))


def step_decay(
    optimizer: Optimizer,
    total_steps: int,
    milestones: Sequence[Length] = (0.5, 0.75),
    factor: float = 0.1,
    warmup_steps: Length = 0,
    steps_per_epoch: int | None = None,
) -> LambdaLR:
    """Build a schedule with a warm-up that multiplies the learning rate by ``factor`` at each milestone.

    Args:
        optimizer: optimizer whose learning rates are scaled.
        total_steps: number of steps of the run, *T*, as for `constant`.
        milestones: steps at which the learning rate drops; step *t* = milestone is the first step with the lower rate.
            Each milestone has the same forms as ``warmup_steps``.
        factor: factor by which the learning rate is multiplied at each milestone, in [0, 1].
        warmup_steps: length of the warm-up, *W*, as for `constant`.
        steps_per_epoch: number of steps in an epoch, as for `constant`.

    Raises:
        SettingError: if the warm-up is longer than the run, if a milestone lies within the warm-up, if a milestone is
            not below ``total_steps``, or if a value is outside its range.
    """
    num_warmup = count_warmup(warmup_steps, total_steps, steps_per_epoch)
    counts = count_milestones(milestones, num_warmup, total_steps, steps_per_epoch)
    drops = [count - num_warmup for count in counts]
    check_fraction("factor", factor)

    def shape(step: int, length: int) -> float:
        return float(factor ** sum(drop <= step for drop in drops))

    return _schedule(optimizer, total_steps, num_warmup, shape)


def _schedule(optimizer: Optimizer, total_steps: int, num_warmup: int, shape: _Shape) -> LambdaLR:
    """Build the `LambdaLR` with a warm-up of ``num_warmup`` steps followed by ``shape``."""
    length = max(0, total_steps - num_warmup)

    # The state of `LambdaLR` contains the attributes of a callable object, but nothing of a function. `factor` is a
    # function so that the state does not contain the length of the run.
    def factor(num_steps_completed: int) -> float:
        if num_steps_completed < num_warmup:
            return (num_steps_completed + 1) / (num_warmup + 1)
        return shape(min(num_steps_completed - num_warmup, length), length)

    return LambdaLR(optimizer, factor)


def _left(step: int, length: int) -> float:
    """Return the fraction of ``length`` that remains at ``step``."""
    return (length - step) / length if length else 0.0
