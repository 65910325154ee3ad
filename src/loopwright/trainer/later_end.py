"""`later_end_lines`: describes how the learning-rate schedules change if a resumed run ends at a later step."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from loopwright.trainer.arguments import SchedulerSpec, takes_total_steps


def later_end_lines(
    specs: Sequence[SchedulerSpec], schedulers: Sequence[Any], optimizer: Optimizer, old_stop: int, new_stop: int
) -> list[str]:
    """Return a line for each schedule that depends on the length of the run.

    For a `LambdaLR`, such as the schedules in `loopwright.optim`, the line contains the learning rate at the current
    step before and after the change. If these two rates are equal, the line contains no rates.

    Args:
        specs: pairs of scheduler callable and monitored metric that `read_schedulers` returned.
        schedulers: schedulers for the entries of ``specs`` without a monitored metric, in the order of ``specs``, with
            their saved states loaded.
        optimizer: optimizer, with its saved state loaded.
        old_stop: ``global_step`` at which the run ended according to the saved plan.
        new_stop: ``global_step`` at which the run ends now.
    """
    made = iter(schedulers)
    lines = []
    for factory, monitor in specs:
        scheduler = next(made) if monitor is None else None
        if not takes_total_steps(factory):
            continue
        line = f"{_name(factory)} now ends at step {new_stop}"
        change = _change_of_rate(scheduler, optimizer) if isinstance(scheduler, LambdaLR) else None
        lines.append(f"{line} instead of {old_stop}." if change is None else f"{line}: {change}.")
    return lines


def _change_of_rate(scheduler: LambdaLR, optimizer: Optimizer) -> str | None:
    pairs = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    new = max(float(base) * factor(scheduler.last_epoch) for base, factor in pairs)
    old = max(float(group["lr"]) for group in optimizer.param_groups)
    if math.isclose(old, new):
        return None
    goes = "goes back up" if new > old else "goes down"
    return f"the learning rate {goes} from {old:.3g} to {new:.3g}"


def _name(factory: Callable[..., Any]) -> str:
    while isinstance(factory, functools.partial):
        factory = factory.func
    name: str = getattr(factory, "__name__", type(factory).__name__)
    return name
