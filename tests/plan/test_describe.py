"""The printed plan."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.loop import TrainingLoop
from loopwright.plan import describe, plan_fit, plan_json
from loopwright.plan.describe import left_over
from strategies import FitCase, fit_cases


def test_the_default_run() -> None:
    loop = TrainingLoop(max_steps=1000, eval_frequency=100, eval_steps=50)
    plan = plan_fit(loop, 45, val={"val": 79}, save_every=500, save_last=True)
    assert describe(plan, batch_size=32, num_samples=1437).splitlines() == [
        "Plan: train 1,000 steps, from global_step 0 to 1,000",
        "  micro-batches  1,000, 1 a step",
        "  samples        31,934, 32 a micro-batch, 32 a step (the effective batch)",
        "  passes         22 whole ones of 45 micro-batches, then 10 of the 45 of the last",
        "  validates      after every 100 steps, 10 times: val (50 of 79)",
        "  saves          every 500th global_step and after the last step: 2 in all",
        "  stages",
        "    2 x [",
        "      4 x [ train 100, validate val (50 of 79) ]",
        "      train 100, save, validate val (50 of 79)",
        "    ]",
    ]


def test_the_rest_of_a_run_with_accumulation_and_two_dataloaders() -> None:
    loop = TrainingLoop(num_epochs=3, grad_accum_steps=4, eval_frequency=10, eval_steps=5)
    val = {"val/dev": None, "val/old": 3}
    plan = plan_fit(loop, 45, val=val, start_step=2, save_last=True, downstream={"cloze": 2, "bits": 1}).after(12)
    assert describe(plan, batch_size=8).splitlines() == [
        "Plan: train 26 steps, from global_step 12 to 38",
        "  rest of        a fit of 36 steps from global_step 2",
        "  micro-batches  95, 4 a step",
        "  samples        at most 760, 8 a micro-batch, 32 a step (the effective batch)",
        "  passes         the last 5 micro-batches of the current one, then 2 whole ones of 45 micro-batches "
        "(12 steps in a whole pass)",
        "  validates      after every 10 steps and after the last, 4 times: val/dev (5), val/old (all 3)",
        "                 val/<metric> is the mean over the 2 sets",
        "                 downstream cloze: every 2nd time and the last",
        "                 downstream bits: each time",
        "  saves          after the last step: 1 in all",
        "  left over      the last step of a pass takes the 1 micro-batch left, not 4",
        "                 the last validation follows 6 steps, not 10",
        "  note           num_epochs=3: 36 steps, 12 in an epoch",
        "                 eval_steps=5: val/old has only 3 batches, which are validated once each",
        "  stages",
        "    validate val/dev (5), validate val/old (all 3), downstream bits",
        "    train 10, validate val/dev (5), validate val/old (all 3), downstream cloze, downstream bits",
        "    train 10, validate val/dev (5), validate val/old (all 3), downstream bits",
        "    train 6, save, validate val/dev (5), validate val/old (all 3), downstream cloze, downstream bits",
    ]


@pytest.mark.parametrize(
    ("eval_frequency", "validates"),
    [
        ("1 epoch", "after every 45 steps (1 epoch), 2 times: val (all 3)"),
        ("0.3 epochs", "after every 14 steps (0.3 epochs) and after the last, 7 times: val (all 3)"),
        ("2 epochs", "once, after the last step (2 epochs): val (all 3)"),
        ("0.01 epochs", "after every step (0.01 epochs), 90 times: val (all 3)"),
        ("3 epochs", "once, after the last step: val (all 3)"),
    ],
)
def test_intervals_in_epochs_are_shown_with_their_steps(eval_frequency: str, validates: str) -> None:
    loop = TrainingLoop(num_epochs=2, eval_frequency=eval_frequency)
    plan = plan_fit(loop, 45, val={"val": 3}, save_every="1 epoch")
    text = describe(plan)
    assert f"  validates      {validates}\n" in text
    assert "  saves          every 45th global_step (1 epoch): 2 in all\n" in text
    too_long = "eval_frequency=3 epochs: 135 steps, more than the 90 steps of this fit, so once, at the end"
    assert (too_long in text) == (eval_frequency == "3 epochs")
    recorded = json.loads(json.dumps(plan_json(plan)))["settings"]
    assert recorded["loop.eval_frequency"] == eval_frequency and recorded["eval_every"] == plan.eval_every


@pytest.mark.parametrize(
    ("num_steps", "position", "per_step", "said"),
    [
        (3, 0, 1, "part of one: 3 of 10 micro-batches"),
        (8, 2, 1, "part of one: 6 of 10 micro-batches, beginning at micro-batch 2"),
        (10, 0, 1, "1, each of 10 micro-batches"),
        (6, 0, 4, "2, each of 10 micro-batches (3 steps in a whole pass)"),
        (10, 2, 1, "the last 8 micro-batches of the current one"),
        (11, 2, 1, "the last 8 micro-batches of the current one, then 1 of the 10 of the last"),
        (12, 0, 1, "1 whole one of 10 micro-batches, then 2 of the 10 of the last"),
        (31, 9, 1, "the last 1 micro-batch of the current one, then 2 whole ones of 10 micro-batches, then 1 of the "
                   "10 of the last"),
    ],
)  # fmt: skip
def test_the_passes_of_a_plan(num_steps: int, position: int, per_step: int, said: str) -> None:
    plan = plan_fit(TrainingLoop(num_steps=num_steps, grad_accum_steps=per_step), 10).after(position)
    assert f"  passes         {said}\n" in describe(plan)


@pytest.mark.parametrize(
    ("frequency", "said"),
    [
        (None, "once, before the first step: val (all 3)"),
        (20, "before the first step, then once, after the last step: val (all 3)"),
        (5, "before the first step, then after every 5 steps, 4 times: val (all 3)"),
    ],
)
def test_validations_before_the_first_step(frequency: int | None, said: str) -> None:
    loop = TrainingLoop(num_steps=20, eval_frequency=frequency, eval_at_start=True)
    plan = plan_fit(loop, 10, val={"val": 3}, save_at_validations=True)
    lines = describe(plan).splitlines()
    assert f"  validates      {said}" in lines
    assert lines[lines.index("  stages") + 1] == "    save, validate val (all 3)"
    assert "before the first step" not in describe(plan.after(5))


def test_a_run_of_unknown_length_that_never_validates() -> None:
    plan = plan_fit(TrainingLoop(num_steps=1, eval_frequency=None), None, val={"val": 3}, save_every=1)
    assert describe(plan).splitlines() == [
        "Plan: train 1 step, from global_step 0 to 1",
        "  micro-batches  1, 1 a step",
        "  passes         unknown: the training dataloader has no length",
        "  validates      never: eval_frequency is off",
        "  saves          after every step: 1 in all",
        "  stages",
        "    train 1, save",
    ]


def test_saves_at_validations_are_described_and_counted() -> None:
    loop = TrainingLoop(num_steps=1000, eval_frequency=300)
    plan = plan_fit(loop, 10, val={"val": 3}, save_every=500, save_last=True, save_at_validations=True)
    line = "  saves          before each validation, every 500th global_step and after the last step"
    assert f"{line}: 5 in all" in describe(plan).splitlines()
    assert f"{line}: 3 in all" in describe(plan.after(500)).splitlines()
    without = plan_fit(loop, 10, save_last=True, save_at_validations=True)
    assert "  saves          after the last step: 1 in all" in describe(without).splitlines()


def test_a_run_that_is_complete() -> None:
    plan = plan_fit(TrainingLoop(max_steps=100), 10, val={"val": 3}, start_step=100)
    assert describe(plan, batch_size=32).splitlines() == [
        "Plan: nothing to train, global_step is 100",
        "  note           max_steps=100: global_step is 100 already, nothing is left to train",
    ]


def test_a_run_with_only_its_last_validation_left() -> None:
    plan = plan_fit(TrainingLoop(max_steps=100, eval_frequency=60), 10, val={"val": 3}).after(100)
    assert describe(plan, batch_size=32).splitlines() == [
        "Plan: nothing to train, global_step is 100",
        "  rest of        a fit of 100 steps from global_step 0",
        "  stages",
        "    validate val (all 3)",
    ]


@given(case=fit_cases(), data=st.data())
def test_every_plan_can_be_described_and_kept(case: FitCase, data: st.DataObject) -> None:
    plan = case.plan.after(data.draw(st.integers(case.plan.start_step, case.plan.stop_step)))
    text = describe(plan, batch_size=32)
    assert text == text.strip()
    assert len(text.splitlines()) < 150
    as_json = plan_json(plan)
    assert json.loads(json.dumps(as_json)) == as_json
    assert as_json["total_steps"] == plan.total_steps


def test_descriptions_of_endless_runs_are_short_and_quick() -> None:
    loop = TrainingLoop(num_steps=10**12, eval_frequency=997)
    plan = plan_fit(loop, 10**7, val={"val": 3}, save_every=1009, downstream={"cloze": 3, "bits": 7})
    lines = describe(plan, batch_size=32).splitlines()
    assert len(lines) < 40
    assert any(line.strip().startswith("... and so on from step ") for line in lines)


@given(case=fit_cases(num_micro_batches=st.integers(1, 20)), batch_size=st.integers(1, 9), data=st.data())
def test_samples_are_counted_exactly_where_a_pass_is_known(case: FitCase, batch_size: int, data: st.DataObject) -> None:
    plan, length = case.plan, case.num_micro_batches
    assert length is not None
    if plan.total_steps:
        num_samples = data.draw(st.integers((length - 1) * batch_size + 1, length * batch_size))
        sizes = [min(batch_size, num_samples - index * batch_size) for index in range(length)]
        counted = sum(
            sum(sizes[window.first_micro_batch : window.first_micro_batch + window.num_micro_batches])
            for window in plan.windows(plan.position, plan.stop_step)
        )
        text = describe(plan, batch_size=batch_size, num_samples=num_samples)
        assert f"  samples        {counted:,}, {batch_size} a micro-batch" in text


@given(case=fit_cases(num_micro_batches=st.integers(1, 20)))
def test_short_steps_are_described_if_there_are_any(case: FitCase) -> None:
    plan = case.plan
    sizes = {window.num_micro_batches for window in plan.windows(plan.start_step, plan.stop_step)}
    said = [line for line in left_over(plan) if line.startswith("the last step of a pass takes the ")]
    short = sorted(sizes - {plan.grad_accum_steps})
    assert len(said) == bool(short)
    if short:
        noun = "micro-batch" if short == [1] else "micro-batches"
        assert said[0].split(" takes the ")[1].startswith(" or ".join(map(str, short)) + f" {noun} left")
