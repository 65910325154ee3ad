"""Functions that compute the learning rates of a plan before training, and describe them in one line."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from loopwright.errors import SettingError
from loopwright.optim import NAME_ARGUMENTS
from loopwright.plan import Plan, draw_curve
from loopwright.trainer.arguments import build_scheduler, make_optimizer, read_schedulers, takes_total_steps

_MAX_POINTS = 1_000  # maximum number of points of a `LambdaLR` curve; the rate of any step can be computed directly
# Maximum number of steps of other curves. Their schedulers must step through all rates; one step takes 5 to 20 µs.
_MAX_SCHEDULER_STEPS = 20_000

Course = Callable[[Plan], str]


def learning_rate_course(optimizer: Any, schedulers: Sequence[Any]) -> Course:
    """Return a function that describes the learning rates of a plan in one line.

    The function builds a new optimizer and new schedulers for one small parameter. The line describes how the learning
    rate ``optimizer.lr`` changes. The learning rates of parameter groups with another ``lr`` are not shown.

    Args:
        optimizer: callable that builds an optimizer for given parameters.
        schedulers: callables that build a scheduler for an optimizer, or mappings with ``scheduler`` and ``monitor``.
    """
    return functools.partial(_course, optimizer, schedulers)


def sketch_optimizer(factory: Any) -> Optimizer:
    """Build an optimizer for one small parameter. Arguments that refer to parameter names of a model are left out.

    Raises:
        SettingError: for a value that the optimizer refuses, such as a learning rate below 0.
    """
    if isinstance(factory, functools.partial):
        kept = {key: value for key, value in factory.keywords.items() if key not in NAME_ARGUMENTS}
        factory = functools.partial(factory.func, *factory.args, **kept)
    try:
        made: Optimizer = make_optimizer(factory, nn.ParameterList([nn.Parameter(torch.zeros(2, 2))]))
    except SettingError as error:
        raise error.under("optimizer") from None
    except (ValueError, TypeError) as error:
        raise SettingError("optimizer", f": {error}") from None
    return made


def depends_on_length(
    optimizer: Any, schedulers: Sequence[Any], num_steps: int, lengths: tuple[int, int], steps_per_epoch: int | None
) -> bool:
    """Return whether the learning rates of the first steps of a fit differ between two lengths of the fit.

    If computing the learning rates would take too long, the result is True.

    Args:
        optimizer: callable that builds an optimizer for given parameters.
        schedulers: callables that build a scheduler for an optimizer, or mappings with ``scheduler`` and ``monitor``.
        num_steps: number of steps at the start of the fit whose learning rates are compared.
        lengths: two lengths of the fit in steps.
        steps_per_epoch: number of steps in an epoch; None: unknown.
    """
    specs = [spec for spec in read_schedulers(schedulers) if spec[1] is None]
    if not any(takes_total_steps(factory) for factory, _ in specs):
        return False
    found = []
    for length in lengths:
        sketch = sketch_optimizer(optimizer)
        made = [build_scheduler(spec, sketch, length, steps_per_epoch) for spec in specs]
        found.append(_rates(made, sketch, 0, num_steps))
    return found[0] is None or found[0] != found[1]


def _course(factory: Any, schedulers: Sequence[Any], plan: Plan) -> str:
    optimizer = sketch_optimizer(factory)
    specs = read_schedulers(schedulers)
    reduced = [f", reduced when {monitor} stops improving" for _, monitor in specs if monitor is not None]
    try:
        sizes = (plan.fit_steps, plan.steps_per_epoch)
        made = [build_scheduler(spec, optimizer, *sizes) for spec in specs if spec[1] is None]
        rates = _rates(made, optimizer, plan.position - plan.start_step, plan.fit_steps)
    except SettingError as error:
        raise error.under("scheduler") from None
    except (ValueError, TypeError) as error:
        raise SettingError("scheduler", f": {error}") from None
    if rates is None:
        return f"{_rate(optimizer):.3g} at first, then set by {' and '.join(type(each).__name__ for each in made)}"
    return _line(rates) + "".join(reduced)


def _rates(schedulers: Sequence[Any], optimizer: Optimizer, start: int, stop: int) -> list[float] | None:
    """Return the learning rates of the steps in ``[start, stop)``. For `LambdaLR`, return at most `_MAX_POINTS` rates.

    Return None if the computation would take too long.
    """
    if not schedulers:
        return [_rate(optimizer)]
    if len(schedulers) == 1 and type(schedulers[0]) is LambdaLR:
        (scheduler,) = schedulers
        num = min(_MAX_POINTS, stop - start)
        steps = [start + i * (stop - start - 1) // max(1, num - 1) for i in range(num)]
        pairs = list(zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True))
        return [max(float(base) * factor(step) for base, factor in pairs) for step in steps]
    if stop > _MAX_SCHEDULER_STEPS:
        return None
    rates = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        for step in range(stop):
            if step >= start:
                rates.append(_rate(optimizer))
            for scheduler in schedulers:
                scheduler.step()
    return rates


def _rate(optimizer: Optimizer) -> float:
    return max(float(group["lr"]) for group in optimizer.param_groups)


def _line(rates: Sequence[float]) -> str:
    highest = max(rates, default=0.0)
    if len(set(rates)) <= 1:
        return f"{highest:.3g} throughout"
    said = [f"first {rates[0]:.3g}", f"highest {highest:.3g}", f"last {rates[-1]:.3g}"]
    if highest == rates[0]:
        said.pop(1)
    return f"{draw_curve(rates)}  {', '.join(said)}"
