"""Laws of the plan: its stages, the rest of a plan after a step, and the position of a run in it."""

from __future__ import annotations

import copy
import tracemalloc
from collections import deque
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.loop import TrainingLoop
from loopwright.plan import Downstream, Plan, Save, Stage, Train, Validate, plan_fit
from strategies import FitCase, fit_cases

ORDER = (Train, Save, Validate, Downstream)


def end_of(stage: Stage) -> int:
    return stage.stop if isinstance(stage, Train) else stage.step


def in_steps(case: FitCase, interval: int | str | None) -> Fraction:
    """Convert an interval in steps or epochs to steps, without rounding; None: 0."""
    if not isinstance(interval, str):
        return Fraction(interval or 0)
    length, per_step = case.num_micro_batches, case.loop.grad_accum_steps
    steps_per_epoch = case.loop.steps_per_epoch or ceil(Fraction(length or 0, per_step))
    return Fraction(interval.split()[0]) * steps_per_epoch


def spell_out(case: FitCase) -> list[Stage]:
    """Compute the stages of a fit step by step, only from the settings and the length of the plan."""
    plan, options = case.plan, case.options
    frequency = case.loop.eval_frequency
    every = 0
    if frequency and (options["val"] or options["downstream"]):
        is_fraction = isinstance(frequency, float)
        every = ceil(Fraction(str(frequency)) * plan.total_steps if is_fraction else in_steps(case, frequency))
    save_every = in_steps(case, options["save_every"])
    stages: list[Stage] = []
    begin, num_rounds = plan.start_step, 0
    at_validations = options["save_at_validations"]
    if case.loop.eval_at_start and options["val"] and plan.total_steps:
        stages += [Save(begin)] if at_validations else []
        for name, length in options["val"].items():
            stages.append(Validate(begin, name, min(case.loop.eval_steps or 0, length or 10**9)))
    for step in range(plan.start_step + 1, plan.stop_step + 1):
        is_last = step == plan.stop_step
        is_saved = (save_every and step % save_every == 0) or (is_last and options["save_last"])
        is_validated = bool(every) and ((step - plan.start_step) % every == 0 or is_last)
        num_rounds += is_validated
        downstream = [name for name, n in options["downstream"].items() if is_last or num_rounds % n == 0]
        is_saved = is_saved or (at_validations and is_validated and (options["val"] or downstream))
        if is_saved or is_validated or is_last:
            stages.append(Train(begin, step))
            begin = step
        if is_saved:
            stages.append(Save(step))
        if is_validated:
            for name, length in options["val"].items():
                stages.append(Validate(step, name, min(case.loop.eval_steps or 0, length or 10**9)))
            stages += [Downstream(step, name) for name in downstream]
    return stages


@given(case=fit_cases())
def test_stages_are_those_of_the_table(case: FitCase) -> None:
    assert list(case.plan) == spell_out(case)


@given(case=fit_cases())
def test_stages_tile_the_run(case: FitCase) -> None:
    plan = case.plan
    trained = [stage for stage in plan if isinstance(stage, Train)]
    assert sum(stage.stop - stage.start for stage in trained) == plan.total_steps == plan.fit_steps
    assert all(stage.start < stage.stop for stage in trained)
    assert all(first.stop == second.start for first, second in pairwise(trained))
    if trained:
        assert (trained[0].start, trained[-1].stop) == (plan.start_step, plan.stop_step)
    else:
        assert list(plan) == []


@given(case=fit_cases())
def test_at_a_step_the_order_is_train_save_validate_downstream(case: FitCase) -> None:
    stages = list(case.plan)
    keys = [(end_of(stage), ORDER.index(type(stage))) for stage in stages]
    assert keys == sorted(keys)
    assert len(set(stages)) == len(stages)


@given(case=fit_cases())
def test_validation_follows_the_last_step(case: FitCase) -> None:
    plan = case.plan
    if plan.eval_every is not None:
        last = [stage for stage in plan if end_of(stage) == plan.stop_step]
        assert [stage.name for stage in last if isinstance(stage, Validate)] == list(case.options["val"])
        assert [stage.name for stage in last if isinstance(stage, Downstream)] == list(case.options["downstream"])


@given(case=fit_cases())
def test_the_last_step_is_saved_once(case: FitCase) -> None:
    plan = case.plan
    saves = [stage.step for stage in plan if isinstance(stage, Save)]
    assert len(set(saves)) == len(saves)
    if case.options["save_last"] and plan.total_steps:
        assert saves[-1] == plan.stop_step


@given(case=fit_cases(), data=st.data())
def test_saves_are_the_multiples_the_validated_steps_and_the_last_step(case: FitCase, data: st.DataObject) -> None:
    plan, every = case.plan, in_steps(case, case.options["save_every"])
    stages = list(plan)
    expected = {step for step in range(plan.start_step + 1, plan.stop_step + 1) if every and step % every == 0}
    if case.options["save_at_validations"]:
        expected |= {stage.step for stage in stages if isinstance(stage, Validate | Downstream)}
    if case.options["save_last"] and plan.total_steps:
        expected.add(plan.stop_step)
    assert [stage.step for stage in stages if isinstance(stage, Save)] == sorted(expected)
    rest = plan.after(data.draw(st.integers(plan.start_step, plan.stop_step)))
    assert rest.num_saves == sum(isinstance(stage, Save) for stage in rest)


@pytest.mark.parametrize(
    ("options", "num_saves"),
    [
        ({"val": {"val": 3}}, 10**9),
        ({"val": {"val": 3}, "save_every": 999}, 10**9 + 10**12 // 999 - 10**12 // 999_000),
        ({"downstream": {"cloze": 2, "bits": 3}}, 10**9 // 2 + 10**9 // 3 - 10**9 // 6),
    ],
    ids=str,
)
def test_saves_of_endless_runs_are_counted_at_once(options: dict[str, Any], num_saves: int) -> None:
    plan = plan_fit(TrainingLoop(num_steps=10**12, eval_frequency=1000), None, save_at_validations=True, **options)
    assert plan.num_saves == num_saves


def test_a_validated_step_is_saved_before_its_validations() -> None:
    loop = TrainingLoop(num_steps=10, eval_frequency=4)
    plan = plan_fit(loop, 9, val={"val": 3}, save_every=8, save_at_validations=True, downstream={"cloze": 2})
    assert list(plan) == [
        Train(0, 4), Save(4), Validate(4, "val", 3),
        Train(4, 8), Save(8), Validate(8, "val", 3), Downstream(8, "cloze"),
        Train(8, 10), Save(10), Validate(10, "val", 3), Downstream(10, "cloze"),
    ]  # fmt: skip
    assert list(plan.after(4))[:2] == [Validate(4, "val", 3), Train(4, 8)]


def test_a_round_in_which_no_validation_is_due_is_not_saved() -> None:
    loop = TrainingLoop(num_steps=10, eval_frequency=2)
    plan = plan_fit(loop, 9, save_at_validations=True, downstream={"cloze": 3})
    assert [stage.step for stage in plan if isinstance(stage, Save)] == [6, 10]


@given(case=fit_cases())
def test_a_plan_can_be_read_again_and_compared(case: FitCase) -> None:
    plan = case.plan
    assert list(plan) == list(plan)
    assert plan == case.plan == copy.deepcopy(plan)


@given(case=fit_cases(), data=st.data())
def test_the_rest_after_any_step_is_a_suffix(case: FitCase, data: st.DataObject) -> None:
    plan = case.plan
    stages = list(plan)
    step = data.draw(st.integers(plan.start_step, plan.stop_step))
    rest = plan.after(step)
    left = list(rest)
    assert_is_suffix_after(stages, left, step)
    assert rest.total_steps == plan.stop_step - step
    assert rest.fit_steps == plan.fit_steps
    later = data.draw(st.integers(step, plan.stop_step))
    assert rest.after(later) == plan.after(later)


def assert_is_suffix_after(stages: list[Stage], left: list[Stage], step: int) -> None:
    """Check that ``left`` are the stages that remain once ``step`` is trained and saved."""
    expected = [
        stage
        for stage in stages
        if end_of(stage) > step or (end_of(stage) == step and isinstance(stage, Validate | Downstream))
    ]
    assert stages[len(stages) - len(left) :] == expected
    if expected and isinstance(expected[0], Train):
        expected[0] = Train(max(step, expected[0].start), expected[0].stop)
    assert left == expected


def test_the_rest_after_every_step_of_one_plan() -> None:
    loop = TrainingLoop(num_steps=40, eval_frequency=7)
    plan = plan_fit(loop, 9, val={"val": 3}, start_step=5, save_every=6, save_last=True, downstream={"cloze": 2})
    for step in range(5, 46):
        assert_is_suffix_after(list(plan), list(plan.after(step)), step)
    assert list(plan.after(12))[:2] == [
        Validate(12, "val", 3),
        Train(12, 18),
    ]  # the plan saves and validates at step 12
    assert list(plan.after(5)) == list(plan)
    assert list(plan.after(45)) == [Validate(45, "val", 3), Downstream(45, "cloze")]


@pytest.mark.parametrize("step", [-1, 2, 14])
def test_after_refuses_steps_which_are_not_in_the_rest(step: int) -> None:
    plan = plan_fit(TrainingLoop(num_steps=10), 9, start_step=3)
    with pytest.raises(ValueError, match=rf"step={step}: expected a step of this plan, 3 to 13\."):
        plan.after(step)
    with pytest.raises(ValueError, match=r"step=4: expected a step of this plan, 5 to 13\."):
        plan.after(5).after(4)


@given(case=fit_cases())
def test_no_boundary_of_a_stage_falls_inside_a_window(case: FitCase) -> None:
    plan = case.plan
    num_consumed = 0
    for stage in plan:
        if isinstance(stage, Train):
            windows = list(plan.windows(stage.start, stage.stop))
            assert windows == [plan.window(step) for step in range(stage.start, stage.stop)]
            num_consumed += sum(window.num_micro_batches for window in windows)
            assert plan.num_micro_batches_between(plan.start_step, stage.stop) == num_consumed
    assert plan.total_micro_batches == num_consumed


@given(case=fit_cases(), data=st.data())
def test_windows_do_not_depend_on_where_a_run_was_cut(case: FitCase, data: st.DataObject) -> None:
    plan = case.plan
    rest = plan.after(data.draw(st.integers(plan.start_step, plan.stop_step)))
    windows = [rest.window(step) for step in range(rest.position, rest.stop_step)]
    assert windows == list(plan.windows(plan.start_step, plan.stop_step))[rest.position - plan.start_step :]


@pytest.mark.parametrize("step", [2, 13])
def test_window_refuses_steps_outside_the_fit(step: int) -> None:
    plan = plan_fit(TrainingLoop(num_steps=10), 9, start_step=3)
    with pytest.raises(ValueError, match=rf"step={step}: expected a step of this plan, 3 to 12\."):
        plan.window(step)
    with pytest.raises(ValueError, match="expected a step of this plan"):
        plan.windows(step, 14)


@given(case=fit_cases())
def test_loop_position_agrees_with_the_stages(case: FitCase) -> None:
    plan = case.plan
    positions = {plan.start_step: (0, 0)}
    loop_idx = batch_idx = 0
    for stage in plan:
        if isinstance(stage, Train):
            for step in range(stage.start, stage.stop):
                batch_idx += plan.window(step).num_micro_batches
                positions[step + 1] = (loop_idx, batch_idx)
        elif isinstance(stage, Validate | Downstream) and positions[stage.step] != (loop_idx, 0):
            loop_idx, batch_idx = loop_idx + 1, 0
            positions[stage.step] = (loop_idx, 0)
    # A round with only downstream validations, none of which is due, also ends a train loop.
    if case.options["val"] or all(every == 1 for every in case.options["downstream"].values()):
        assert {step: plan.loop_position(step) for step in positions} == positions


def test_loop_position_of_one_plan() -> None:
    plan = plan_fit(TrainingLoop(num_steps=7, eval_frequency=3, grad_accum_steps=2), 3, val={"val": 1}, save_every=2)
    assert [plan.loop_position(step) for step in range(8)] == [
        (0, 0), (0, 2), (0, 3), (1, 0), (1, 1), (1, 3), (2, 0), (3, 0),
    ]  # fmt: skip


def test_validations_before_the_first_step_are_saved_first_and_not_counted() -> None:
    loop = TrainingLoop(num_steps=4, eval_frequency=2, eval_steps=3, eval_at_start=True)
    plan = plan_fit(loop, 9, val={"val": 9}, start_step=5, save_at_validations=True, downstream={"cloze": 1})
    start = [Save(5), Validate(5, "val", 3)]
    assert list(plan)[:3] == [*start, Train(5, 7)]
    assert [stage for stage in plan if isinstance(stage, Downstream)] == [
        Downstream(7, "cloze"),
        Downstream(9, "cloze"),
    ]
    assert [plan.loop_position(step)[0] for step in (5, 6, 7, 9)] == [0, 0, 1, 2]
    assert list(plan.after(5)) == list(plan)[1:]
    assert list(plan.after(5, 1)) == list(plan)[2:]
    assert plan.whole() == plan.after(7).whole() == plan
    off = plan_fit(TrainingLoop(num_steps=4, eval_frequency=None, eval_at_start=True), 9, val={"val": 9})
    assert list(off) == [Validate(0, "val", 9), Train(0, 4)]


def test_the_example_of_the_manual() -> None:
    loop = TrainingLoop(num_steps=1000, eval_frequency=100, eval_steps=50)
    stages = list(plan_fit(loop, 937, val={"val": 79}, save_every=100, downstream={"cloze": 5}))
    assert stages[:4] == [Train(0, 100), Save(100), Validate(100, "val", 50), Train(100, 200)]
    assert [stage for stage in stages if isinstance(stage, Downstream)] == [
        Downstream(500, "cloze"),
        Downstream(1000, "cloze"),
    ]
    assert stages[-3:] == [Save(1000), Validate(1000, "val", 50), Downstream(1000, "cloze")]


def test_saves_fall_on_multiples_of_global_step_and_validations_are_counted_from_the_start() -> None:
    loop = TrainingLoop(num_steps=12, eval_frequency=5)
    plan = plan_fit(loop, 100, val={"val": 1}, start_step=7, save_every=5, save_last=True)
    assert [stage.step for stage in plan if isinstance(stage, Save)] == [10, 15, 19]
    assert [stage.step for stage in plan if isinstance(stage, Validate)] == [12, 17, 19]


def test_a_frequency_beyond_the_end_validates_once_after_the_last_step() -> None:
    plan = plan_fit(TrainingLoop(num_steps=10, eval_frequency=500), 100, val={"val": 4})
    assert list(plan) == [Train(0, 10), Validate(10, "val", 4)]


def test_nothing_is_left_at_max_steps() -> None:
    loop = TrainingLoop(max_steps=10, eval_frequency=1)
    plan = plan_fit(loop, 100, val={"val": 4}, start_step=10, save_every=1, save_last=True, downstream={"cloze": 1})
    assert list(plan) == []
    assert (plan.total_steps, plan.fit_steps, plan.total_micro_batches) == (0, 0, 0)
    assert list(plan.after(10)) == []
    assert not plan.saves_at(10)
    assert not plan.validates_at(10)
    assert plan.loop_position(10) == (0, 0)
    assert list(plan.windows(10, 10)) == []


def test_plans_of_any_length_are_read_from_any_step_quickly() -> None:
    loop = TrainingLoop(num_steps=10**12, eval_frequency=1e-9, grad_accum_steps=3)
    plan = plan_fit(loop, 10**11, val={"val": 3}, save_every=999, save_last=True)
    assert plan.eval_every == 1000
    assert list(plan.after(10**12 - 1)) == [Train(10**12 - 1, 10**12), Save(10**12), Validate(10**12, "val", 3)]
    assert plan.loop_position(10**12 - 1) == (10**9 - 1, 999 * 3)
    assert plan.window(10**12 - 1).num_micro_batches == 3
    assert next(iter(plan.after(10**11))) == Validate(10**11, "val", 3)


def peak_bytes_of_reading(plan: Plan) -> int:
    """Return the peak memory while ``plan`` is iterated completely."""
    stages = iter(plan)
    tracemalloc.start()
    try:
        deque(stages, maxlen=0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_plan_holds_no_stages() -> None:
    sizes = [
        peak_bytes_of_reading(plan_fit(loop, 45, val={"val": 3}, save_at_validations=True))
        for loop in (TrainingLoop(num_steps=num_steps, eval_frequency=1) for num_steps in (100, 10_000))
    ]
    assert max(sizes) < 100_000  # other threads of the tests may allocate some memory


@pytest.mark.slow
def test_a_million_steps_with_validation_at_each_hold_no_memory() -> None:
    loop = TrainingLoop(num_steps=10**6, eval_frequency=1)
    assert peak_bytes_of_reading(plan_fit(loop, 45, val={"val": 3}, save_at_validations=True)) < 100_000
