"""Tests of the functions that format progress as text."""

from __future__ import annotations

import math

import pytest
from torch.utils.data import DataLoader

import tiny
from loopwright import TrainingLoop
from loopwright.data import csv
from loopwright.loggers.lines import (
    duration_text,
    epoch_number,
    metrics_text,
    number_text,
    plan_text,
    rate_text,
    step_text,
    timing_text,
)
from loopwright.plan import describe, plan_fit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.41372, "0.4137"),
        (0.0, "0"),
        (1.0, "1"),
        (123456.0, "1.235e+05"),
        (0.00012346, "1.235e-04"),
        (-12.5, "-12.5"),
        (1e9, "1.000e+09"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_have_four_significant_digits(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (360_000, "100:00:00")]
)
def test_durations_have_hours_minutes_and_seconds(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(812.6, "813 steps/s"), (21_234.0, "21234 steps/s"), (1.25, "1.25 steps/s"), (0.04, "25 s/step")]
)
def test_rates_have_a_unit(rate: float, text: str) -> None:
    assert rate_text(rate) == text


def test_measured_rates_and_shares_have_units_and_the_more_telling_one_is_shown() -> None:
    timing = {"train/samples_per_second": 61_265.3, "train/teraflops_per_second": 0.0051, "train/seconds": 2.0}
    assert timing_text(timing) == "61,265 samples/s  0.0051 TFLOP/s"
    timing |= {"train/items_per_second": 7.25, "train/flops_utilisation_fraction": 0.413}
    assert timing_text({**timing, "train/data_stall_fraction": 0.05}) == "7.2 items/s  41 % of peak  5 % data wait"
    assert timing_text({}) == ""


def test_steps_and_metrics_are_formatted() -> None:
    assert step_text(120, 2000) == "step 120/2000"
    assert step_text(120, None) == "step 120"
    assert metrics_text({"val/loss": 0.25, "val/accuracy": 1}) == "val/loss 0.25  val/accuracy 1"
    assert metrics_text({}) == ""


def test_an_epoch_is_one_pass_or_has_steps_per_epoch_steps() -> None:
    plan = plan_fit(TrainingLoop(num_steps=25), 10)
    assert [epoch_number(plan, None, step) for step in (0, 9, 10, 24, 25)] == [1, 1, 2, 3, 3]
    assert [epoch_number(plan, 5, step) for step in (0, 4, 5, 25)] == [1, 1, 2, 5]


def test_a_fit_of_0_steps_is_in_its_first_epoch() -> None:
    assert epoch_number(plan_fit(TrainingLoop(max_steps=5), 10, start_step=5), None, 5) == 1


def test_a_plan_is_described_in_samples_if_their_number_is_known() -> None:
    plan = plan_fit(TrainingLoop(num_epochs=1), 13)
    whole = DataLoader(tiny.rows(50), batch_size=4)
    assert plan_text(plan, whole) == describe(plan, batch_size=4, num_samples=50)
    assert plan_text(plan, tiny.batches()) == describe(plan)
    table = csv("loopwright:wine.csv", "cultivar", types={"ash": "ignore"})
    assert "\n  columns        alcohol: number, malic_acid: number, " in plan_text(plan, table.train)
    assert "; target cultivar: 3 classes\n" in plan_text(plan, table.train)
    dropping = DataLoader(tiny.rows(50), batch_size=4, drop_last=True)
    shorter = plan_fit(TrainingLoop(num_epochs=1), len(dropping))
    assert plan_text(shorter, dropping) == describe(shorter, batch_size=4)
