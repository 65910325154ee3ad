"""Warm-up and cosine: the learning rates of a run, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD

from loopwright.optim import warmup_cosine


def optimizer(*rates: float) -> SGD:
    return SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def rates_of_run(num_steps: int, **settings: Any) -> list[float]:
    """The learning rate with which each step is made, and the one after the last."""
    sgd = optimizer(1.0)
    scheduler = warmup_cosine(sgd, **settings)
    rates = []
    for _ in range(num_steps):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    return [*rates, sgd.param_groups[0]["lr"]]


def test_a_run_without_warm_up_falls_along_half_a_cosine() -> None:
    expected = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0]
    assert rates_of_run(4, total_steps=4) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("warmup_steps", [3, 0.25])
def test_a_warm_up_rises_in_equal_steps_from_above_zero(warmup_steps: float) -> None:
    rates = rates_of_run(12, total_steps=12, warmup_steps=warmup_steps, final_fraction=0.1)
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[12] == pytest.approx(0.1)


@given(
    total_steps=st.integers(1, 60),
    warmup=st.integers(0, 60),
    final=st.floats(0, 1),
)
def test_rates_rise_then_fall_and_stay_between_zero_and_the_optimizers_own(
    total_steps: int, warmup: int, final: float
) -> None:
    warmup = min(warmup, total_steps)
    rates = rates_of_run(total_steps + 2, total_steps=total_steps, warmup_steps=warmup, final_fraction=final)
    assert all(0 <= rate <= 1 + 1e-12 for rate in rates)
    assert all(rate > 0 for rate in rates[:total_steps])
    rising, falling = rates[: min(warmup, total_steps - 1) + 1], rates[warmup:]
    assert rising == sorted(rising)
    assert is_falling(falling)
    assert rates[total_steps:] == pytest.approx([final] * 3)


def is_falling(rates: Sequence[float]) -> bool:
    return all(later <= earlier + 1e-12 for earlier, later in pairwise(rates))


def test_each_group_keeps_its_own_rate() -> None:
    sgd = optimizer(1.0, 0.1)
    warmup_cosine(sgd, total_steps=10, warmup_steps=1)
    assert [group["lr"] for group in sgd.param_groups] == pytest.approx([0.5, 0.05])


def test_a_resumed_run_may_end_later() -> None:
    first = warmup_cosine(optimizer(1.0), total_steps=10)
    for _ in range(5):
        first.optimizer.step()
        first.step()
    later = warmup_cosine(optimizer(1.0), total_steps=20)
    later.load_state_dict(first.state_dict())
    later.optimizer.step()
    later.step()
    assert later.get_last_lr() == pytest.approx([(1 + math.cos(math.pi * 6 / 20)) / 2])


def test_a_run_that_has_nothing_left_to_do_has_a_schedule() -> None:
    assert rates_of_run(0, total_steps=0, warmup_steps=5) == pytest.approx([1 / 6])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"warmup_steps": 11}, "warmup_steps=11: expected at most the 10 steps of the run."),
        ({"warmup_steps": 1.5}, "warmup_steps=1.5: expected a whole number of steps, 0 or more, or a fraction"),
        ({"warmup_steps": -1}, "warmup_steps=-1: expected a whole number of steps"),
        ({"warmup_steps": True}, "warmup_steps=True: expected a whole number of steps"),
        ({"final_fraction": 1.1}, "final_fraction=1.1: expected a fraction in [0, 1]."),
        ({"final_fraction": "0"}, "final_fraction='0': expected a fraction in [0, 1]."),
        ({"total_steps": -1}, "total_steps=-1: expected a whole number, 0 or more."),
        ({"total_steps": 1.0}, "total_steps=1.0: expected a whole number, 0 or more."),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        warmup_cosine(optimizer(1.0), **{"total_steps": 10, **settings})
    assert str(caught.value).startswith(line)
