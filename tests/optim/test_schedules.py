"""Tests of the learning-rate schedules, step by step."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from loopwright import Checkpointing, TrainingLoop
from loopwright.optim import constant, inverse_sqrt, linear, step_decay, warmup_cosine, warmup_stable_decay
from tiny import Recorder, batches, trainer

Schedule = Callable[..., LambdaLR]
SCHEDULES: list[Schedule] = [linear, warmup_cosine, inverse_sqrt, step_decay, warmup_stable_decay, constant]


def optimizer(*rates: float) -> SGD:
    return SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def rates_of_run(schedule: Schedule, num_steps: int, **settings: Any) -> list[float]:
    """Return the learning rate of each step, and the learning rate after the last step."""
    sgd = optimizer(1.0)
    scheduler = schedule(sgd, **settings)
    rates = []
    for _ in range(num_steps):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    return [*rates, sgd.param_groups[0]["lr"]]


def never_rises(rates: Sequence[float]) -> bool:
    return all(later <= earlier + 1e-12 for earlier, later in pairwise(rates))


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(total_steps=st.integers(1, 60), warmup=st.integers(0, 60))
def test_after_the_warm_up_to_the_optimizers_rate_no_schedule_rises(
    schedule: Schedule, total_steps: int, warmup: int
) -> None:
    settings: dict[str, Any] = {"warmup_steps": min(warmup, total_steps)}
    if schedule is warmup_stable_decay:
        settings["decay_steps"] = (total_steps - settings["warmup_steps"]) // 2
    if schedule is step_decay:
        settings["milestones"] = [min(settings["warmup_steps"] + 2, total_steps - 1)]
        settings["warmup_steps"] = min(settings["warmup_steps"], settings["milestones"][0])
    rates = rates_of_run(schedule, total_steps + 2, total_steps=total_steps, **settings)
    num_warmup = settings["warmup_steps"]
    assert rates[0] == pytest.approx(1 / (num_warmup + 1) if num_warmup else rates[0])
    assert rates[:num_warmup] == pytest.approx([(step + 1) / (num_warmup + 1) for step in range(num_warmup)])
    assert never_rises(rates[num_warmup:])
    assert all(0 < rate <= 1 + 1e-12 for rate in rates[:total_steps])
    if num_warmup + 2 < total_steps:
        assert rates[num_warmup] == pytest.approx(1)


@pytest.mark.parametrize("schedule", [linear, warmup_cosine, warmup_stable_decay])
@given(total_steps=st.integers(1, 60), final=st.floats(0, 1))
def test_the_final_fraction_is_reached_at_the_end_of_the_run_and_kept(
    schedule: Schedule, total_steps: int, final: float
) -> None:
    rates = rates_of_run(schedule, total_steps + 2, total_steps=total_steps, final_fraction=final)
    assert rates[total_steps:] == [final] * 3


def test_linear_decays_in_equal_steps() -> None:
    expected = [0.5, 1, 0.8, 0.6, 0.4, 0.2]
    assert rates_of_run(linear, 5, total_steps=5, warmup_steps=1, final_fraction=0.2) == pytest.approx(expected)


def test_warmup_cosine_without_a_warm_up_is_half_a_period_of_a_cosine() -> None:
    expected = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0]
    assert rates_of_run(warmup_cosine, 4, total_steps=4) == pytest.approx(expected, abs=1e-12)


def test_warmup_stable_decay_keeps_the_rate_until_the_decay() -> None:
    rates = rates_of_run(warmup_stable_decay, 10, total_steps=10, warmup_steps=1, decay_steps=4)
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])


@given(total_steps=st.integers(4, 60), longer=st.integers(1, 30))
def test_a_longer_run_has_the_same_rates_until_the_shorter_run_decays(total_steps: int, longer: int) -> None:
    settings = {"warmup_steps": 2, "decay_steps": 2}
    short = rates_of_run(warmup_stable_decay, total_steps, total_steps=total_steps, **settings)
    long = rates_of_run(warmup_stable_decay, total_steps, total_steps=total_steps + longer, **settings)
    assert short[: total_steps - 1] == long[: total_steps - 1]


@given(total_steps=st.integers(1, 400), warmup=st.floats(0.01, 0.7))
def test_fractions_with_a_sum_below_1_fit_a_run_of_any_length(total_steps: int, warmup: float) -> None:
    decay = 0.99 - warmup
    rates = rates_of_run(
        warmup_stable_decay, total_steps, total_steps=total_steps, warmup_steps=warmup, decay_steps=decay
    )
    assert rates[-1] == 0


@given(step=st.integers(0, 200), warmup=st.integers(0, 50))
def test_inverse_sqrt_equals_the_formula_of_the_paper(step: int, warmup: int) -> None:
    factor = inverse_sqrt(optimizer(1.0), 1000, warmup_steps=warmup).lr_lambdas[0]
    num, num_warmup = step + 1, warmup + 1
    assert factor(step) == pytest.approx(min(num**-0.5, num * num_warmup**-1.5) * num_warmup**0.5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(hundredths=st.integers(1, 200), steps_per_epoch=st.integers(1, 20))
def test_a_length_in_epochs_is_the_number_of_steps_rounded_up(
    schedule: Schedule, hundredths: int, steps_per_epoch: int
) -> None:
    num_steps = -(-hundredths * steps_per_epoch // 100)
    in_epochs, in_steps = f"{hundredths // 100}.{hundredths % 100:02} epochs", num_steps
    names = {step_decay: "milestones", warmup_stable_decay: "decay_steps"}
    name = names.get(schedule, "warmup_steps")
    text, number = ([in_epochs], [in_steps]) if name == "milestones" else (in_epochs, in_steps)
    told: dict[str, Any] = {"total_steps": 41, "steps_per_epoch": steps_per_epoch}
    assert rates_of_run(schedule, 42, **told, **{name: text}) == rates_of_run(schedule, 42, **told, **{name: number})


def test_epochs_steps_and_fractions_can_be_combined() -> None:
    settings: dict[str, Any] = {"total_steps": 8, "steps_per_epoch": 2, "factor": 0.5}
    rates = rates_of_run(step_decay, 8, milestones=["1 epoch", 3, 0.5], warmup_steps="0.5 epochs", **settings)
    assert rates == [0.5, 1, 0.5, 0.25, 0.125, 0.125, 0.125, 0.125, 0.125]


def test_a_milestone_in_epochs_may_be_rounded_up_to_the_end_of_the_run_but_not_be_the_end() -> None:
    settings: dict[str, Any] = {"total_steps": 8, "steps_per_epoch": 4}
    assert rates_of_run(step_decay, 8, milestones=["1.9 epochs"], **settings)[7:] == pytest.approx([1, 0.1])
    with pytest.raises(ValueError, match=r"^milestones='2 epochs': expected steps from 0"):
        step_decay(optimizer(1.0), milestones=["2 epochs"], **settings)


def test_step_decay_drops_at_its_milestones() -> None:
    rates = rates_of_run(step_decay, 8, total_steps=8, milestones=[0.25, 6], factor=0.5, warmup_steps=1)
    assert rates == [0.5, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_a_fraction_of_the_run_is_converted_exactly() -> None:
    rates = rates_of_run(constant, 100, total_steps=100, warmup_steps=0.07)
    assert rates[:8] == pytest.approx([step / 8 for step in range(1, 9)])


def test_each_group_keeps_its_own_rate() -> None:
    sgd = optimizer(1.0, 0.1)
    warmup_cosine(sgd, total_steps=10, warmup_steps=1)
    assert [group["lr"] for group in sgd.param_groups] == pytest.approx([0.5, 0.05])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_state_holds_the_position_but_not_the_shape(schedule: Schedule) -> None:
    first, later = schedule(optimizer(1.0), total_steps=10), schedule(optimizer(1.0), total_steps=20)
    for _ in range(5):
        first.optimizer.step()
        first.step()
    later.load_state_dict(first.state_dict())
    later.optimizer.step()
    later.step()
    assert later.get_last_lr() == [schedule(optimizer(1.0), total_steps=20).lr_lambdas[0](6)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_resumed_run_has_the_rates_of_a_straight_run(schedule: Schedule, stop: int, tmp_path: Any) -> None:
    def rates(max_steps: int, run_dir: Any, ckpt_path: Any = None) -> list[float]:
        seen: list[float] = []
        ours = trainer(
            TrainingLoop(max_steps=8, eval_frequency=None),
            schedulers=functools.partial(schedule, warmup_steps=2),
            checkpoint=Checkpointing(every_n_steps=1),
            run_dir=run_dir,
            callbacks=[
                Recorder(
                    lambda trainer, batch, batch_idx: (
                        seen.append(trainer.optimizer.param_groups[0]["lr"]),
                        trainer.stop("enough") if trainer.global_step == max_steps else None,
                    )
                )
            ],
        )
        ours.fit(data, ckpt_path=ckpt_path)
        return seen

    data = batches(8)
    straight = rates(8, tmp_path / "straight")
    begun = rates(stop, tmp_path / "begun")
    assert begun + rates(8, tmp_path / "resumed", tmp_path / "begun") == straight


def test_schedules_of_a_run_of_0_steps_can_be_built() -> None:
    assert rates_of_run(warmup_cosine, 0, total_steps=0, warmup_steps=5) == pytest.approx([1 / 6])
    assert all(schedule(optimizer(1.0), total_steps=0).lr_lambdas[0](0) >= 0 for schedule in SCHEDULES)


STEPS = "expected a whole number of steps, 0 or more, a fraction in (0, 1) of the run, or text such as '2 epochs'"


@pytest.mark.parametrize(
    ("schedule", "settings", "line"),
    [
        (constant, {"warmup_steps": 11}, "warmup_steps=11: expected at most 10, the steps of the run; a fraction in"),
        (linear, {"warmup_steps": 1.5}, f"warmup_steps=1.5: {STEPS}."),
        (inverse_sqrt, {"warmup_steps": -1}, f"warmup_steps=-1: {STEPS}"),
        (warmup_cosine, {"warmup_steps": True}, f"warmup_steps=True: {STEPS}"),
        (warmup_cosine, {"final_fraction": 1.1}, "final_fraction=1.1: expected a fraction in [0, 1]."),
        (linear, {"final_fraction": "0"}, "final_fraction='0': expected a fraction in [0, 1]."),
        (constant, {"total_steps": -1}, "total_steps=-1: expected a whole number, 0 or more."),
        (step_decay, {"total_steps": 1.0}, "total_steps=1.0: expected a whole number, 0 or more."),
        (
            warmup_stable_decay,
            {"warmup_steps": 4, "decay_steps": 7},
            "decay_steps=7 after warmup_steps=4: expected at most 10 steps for both, the length of the run",
        ),
        (warmup_stable_decay, {"warmup_steps": 0.7, "decay_steps": 0.7}, "decay_steps=0.7 after warmup_steps=0.7"),
        (warmup_stable_decay, {"warmup_steps": 0.6, "decay_steps": 0.5}, "decay_steps=0.5 after warmup_steps=0.6"),
        (warmup_stable_decay, {"warmup_steps": 6, "decay_steps": 0.5}, "decay_steps=0.5 after warmup_steps=6"),
        (step_decay, {"milestones": [10]}, "milestones=10: expected steps from 0 (the end of the warm-up) to 9"),
        (step_decay, {"milestones": 3}, "milestones=3: expected a list"),
        (step_decay, {"milestones": [1], "warmup_steps": 2}, "milestones=1: expected steps from 2"),
        (step_decay, {"milestones": [0.1], "warmup_steps": 2}, "milestones=0.1: expected steps from 2"),
        (step_decay, {"factor": 2}, "factor=2: expected a fraction in [0, 1]."),
        (linear, {"warmup_steps": "1ep", "steps_per_epoch": 5}, f"warmup_steps='1ep': {STEPS}; use '1 epoch'."),
        (linear, {"warmup_steps": "3 epochs", "steps_per_epoch": 5}, "warmup_steps='3 epochs': expected at most 10"),
        (linear, {"steps_per_epoch": 0}, "steps_per_epoch=0: expected a whole number of steps, 1 or more, or null."),
        (
            step_decay,
            {"milestones": ["1 epoch"]},
            "steps_per_epoch=null: expected the steps of an epoch, which milestones='1 epoch' needs",
        ),
    ],
)
def test_wrong_settings_are_refused(schedule: Schedule, settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        schedule(optimizer(1.0), **{"total_steps": 10, **settings})
    assert str(caught.value).startswith(line)
