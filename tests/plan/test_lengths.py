"""The end of a fit: num_steps, max_steps, num_epochs and steps_per_epoch, alone and combined."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.loop import TrainingLoop
from loopwright.plan import plan_fit


def stop_of(num_micro_batches: int | None, start_step: int = 0, start_micro_batch: int = 0, **settings: Any) -> int:
    plan = plan_fit(
        TrainingLoop(**settings), num_micro_batches, start_step=start_step, start_micro_batch=start_micro_batch
    )
    return plan.stop_step


def test_num_steps_count_from_the_start_of_the_fit() -> None:
    assert stop_of(45, num_steps=20) == 20
    assert stop_of(45, start_step=7, num_steps=20) == 27


def test_num_steps_replace_max_steps_with_a_note() -> None:
    plan = plan_fit(TrainingLoop(num_steps=20, max_steps=10), 45, start_step=7)
    assert plan.stop_step == 27
    assert plan.notes == ("num_steps=20 supersedes max_steps=10",)


def test_max_steps_count_from_the_start_of_the_run() -> None:
    assert stop_of(45, start_step=7, max_steps=20) == 20


@pytest.mark.parametrize("start_step", [20, 21])
def test_max_steps_that_are_reached_train_nothing_with_a_note(start_step: int) -> None:
    plan = plan_fit(TrainingLoop(max_steps=20, num_epochs=3), 45, start_step=start_step)
    assert (plan.total_steps, list(plan)) == (0, [])
    assert plan.notes == (f"max_steps=20: global_step is {start_step} already, nothing is left to train",)


@given(length=st.integers(1, 50), data=st.data(), num_epochs=st.integers(1, 5), start_step=st.integers(0, 9))
def test_epochs_are_passes_from_the_start_of_a_pass(
    length: int, data: st.DataObject, num_epochs: int, start_step: int
) -> None:
    per_step = data.draw(st.integers(1, length))
    start_micro_batch = data.draw(st.sampled_from([0, length]))
    loop = TrainingLoop(num_epochs=num_epochs, grad_accum_steps=per_step)
    plan = plan_fit(loop, length, start_step=start_step, start_micro_batch=start_micro_batch)
    assert plan.total_steps == num_epochs * -(-length // per_step)
    assert plan.total_micro_batches == num_epochs * length


def test_epochs_begun_inside_a_pass_are_as_many_steps() -> None:
    assert stop_of(10, start_step=1, start_micro_batch=4, num_epochs=2, grad_accum_steps=4) == 1 + 2 * 3
    plan = plan_fit(TrainingLoop(num_epochs=2, grad_accum_steps=4), 10, start_step=1, start_micro_batch=4)
    assert plan.total_micro_batches == 20
    assert plan.notes == ("num_epochs=2: 6 steps, 3 in an epoch, counted from micro-batch 4 of the pass",)


def test_steps_per_epoch_is_the_length_of_an_epoch() -> None:
    assert stop_of(45, num_epochs=3, steps_per_epoch=10) == 30
    assert stop_of(45, num_epochs=3, steps_per_epoch=45) == 135
    assert stop_of(None, num_epochs=3, steps_per_epoch=10) == 30
    # An epoch is only a count: the data continue at their current position.
    plan = plan_fit(TrainingLoop(num_epochs=3, steps_per_epoch=10), 45)
    assert plan.window(29) == (0, 29, 1)


@pytest.mark.parametrize("length", [{"num_epochs": 1}, {"num_steps": 5}, {"max_steps": 5}])
def test_an_epoch_longer_than_a_pass_is_refused(length: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"steps_per_epoch=13: expected at most 12, the steps of one pass"):
        stop_of(45, steps_per_epoch=13, grad_accum_steps=4, **length)
    assert stop_of(45, steps_per_epoch=12, grad_accum_steps=4, **length) == length.get("num_epochs", 0) * 12 or 5


def test_epochs_of_a_dataloader_of_unknown_length_need_steps_per_epoch() -> None:
    with pytest.raises(ValueError, match=r"steps_per_epoch=null: .* unknown length and num_epochs=3; .*max_steps"):
        stop_of(None, num_epochs=3)


@pytest.mark.parametrize(
    ("max_steps", "stop", "note"),
    [
        (10, 10, "max_steps=10 ends the fit before num_epochs=2 would"),
        (50, 17, "num_epochs=2 ends the fit before max_steps=50 would"),
        (17, 17, "max_steps=17 and num_epochs=2 end the fit at the same step"),
    ],
)
def test_of_num_epochs_and_max_steps_the_first_ends_the_fit(max_steps: int, stop: int, note: str) -> None:
    plan = plan_fit(TrainingLoop(num_epochs=2, max_steps=max_steps), 6, start_step=5)
    assert plan.stop_step == stop
    assert plan.notes == ("num_epochs=2: 12 steps, 6 in an epoch", note)


@pytest.mark.parametrize("settings", [{}, {"steps_per_epoch": 3}])
def test_a_fit_needs_one_of_the_three_lengths(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"num_steps, max_steps, num_epochs: expected one of the three"):
        stop_of(45, **settings)


@pytest.mark.parametrize("length", ["num_steps", "max_steps"])
def test_steps_per_epoch_without_epochs_gets_a_note(length: str) -> None:
    loop = TrainingLoop(**{length: 10, "steps_per_epoch": 3})
    assert plan_fit(loop, 45).notes == ("steps_per_epoch=3 has no effect unless another setting is in epochs",)
