"""The folded form of a plan is short, and expands to the same stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loopwright.loop import TrainingLoop
from loopwright.plan import Downstream, Plan, Save, Stage, Train, Validate, plan_fit
from loopwright.plan.plan_json import Block, Elided, Item, Repeat, encode, encoded_json
from strategies import FitCase, fit_cases


def blocks_of(items: Iterable[Item]) -> Iterator[Block]:
    for item in items:
        assert not isinstance(item, Elided)
        if isinstance(item, Repeat):
            for _ in range(item.times):
                yield from blocks_of(item.body)
        else:
            yield item


def expand(plan: Plan, items: Iterable[Item]) -> list[Stage]:
    """Return the stages that the folded form represents."""
    stages: list[Stage] = []
    step = plan.position
    for block in blocks_of(items):
        if block.num_steps:
            stages.append(Train(step, step + block.num_steps))
        step += block.num_steps
        if block.is_saved:
            stages.append(Save(step))
        if block.is_validated:
            stages += [Validate(step, val.name, val.num_batches) for val in plan.val]
            stages += [Downstream(step, name) for name in block.downstream]
    return stages


def has_elided(items: Iterable[Item]) -> bool:
    return any(isinstance(item, Elided) or (isinstance(item, Repeat) and has_elided(item.body)) for item in items)


def num_entries(items: Iterable[Item]) -> int:
    return sum(1 + (num_entries(item.body) if isinstance(item, Repeat) else 0) for item in items)


@given(case=fit_cases(), data=st.data())
def test_the_folded_form_expands_to_the_stages(case: FitCase, data: st.DataObject) -> None:
    plan = case.plan.after(data.draw(st.integers(case.plan.start_step, case.plan.stop_step)))
    items = encode(plan)
    if not has_elided(items):
        assert expand(plan, items) == list(plan)
    assert num_entries(items) <= 90


@given(
    num_steps=st.integers(1, 3000),
    start_step=st.integers(0, 500),
    eval_every=st.integers(1, 300),
    save_every=st.integers(1, 300),
    every_n_vals=st.integers(1, 7),
    at_validations=st.booleans(),
)
@example(num_steps=8, start_step=1, eval_every=1, save_every=3, every_n_vals=1, at_validations=True)
def test_long_plans_expand_to_the_stages_up_to_what_is_left_out(
    num_steps: int, start_step: int, eval_every: int, save_every: int, every_n_vals: int, at_validations: bool
) -> None:
    loop = TrainingLoop(num_steps=num_steps, eval_frequency=eval_every)
    downstream = {"cloze": every_n_vals}
    saves: dict[str, Any] = {"save_every": save_every, "save_at_validations": at_validations}
    plan = plan_fit(loop, None, start_step=start_step, downstream=downstream, **saves)
    items = encode(plan)
    if has_elided(items):
        *first, elided, last = items
        assert isinstance(elided, Elided)
        stages = list(plan)
        start = expand(plan, first)
        assert stages[: len(start)] == start
        assert sum(block.num_steps for block in blocks_of(first)) == elided.start - start_step
        assert expand(plan.after(elided.stop), [last]) == list(plan.after(elided.stop))[-len(expand(plan, [last])) :]
    else:
        assert expand(plan, items) == list(plan)


def folded(num_steps: int, eval_every: int, save_every: int | None = None) -> list[Item]:
    loop = TrainingLoop(num_steps=num_steps, eval_frequency=eval_every)
    return encode(plan_fit(loop, None, val={"val": 3}, save_every=save_every))


TRAIN_VALIDATE = Block(100, False, True, ())
TRAIN_SAVE_VALIDATE = Block(100, True, True, ())


def test_equal_stretches_are_counted() -> None:
    assert folded(1000, 100) == [Repeat(10, (TRAIN_VALIDATE,))]
    assert folded(1000, 100, save_every=100) == [Repeat(10, (TRAIN_SAVE_VALIDATE,))]
    assert folded(1030, 100) == [Repeat(10, (TRAIN_VALIDATE,)), Block(30, False, True, ())]
    assert folded(100, 100) == [TRAIN_VALIDATE]


@pytest.mark.parametrize(("num_steps", "save_every"), [(10**11, 10**10), (1000, 500), (2700, 500), (2000, 1000)])
def test_saves_at_validations_that_include_all_other_saves_are_counted_at_once(num_steps: int, save_every: int) -> None:
    loop = TrainingLoop(num_steps=num_steps, eval_frequency=100)
    plan = plan_fit(loop, None, val={"val": 3}, save_every=save_every, save_at_validations=True)
    assert encode(plan) == [Repeat(num_steps // 100, (TRAIN_SAVE_VALIDATE,))]


def test_cycles_are_folded() -> None:
    cycle = (Repeat(9, (TRAIN_VALIDATE,)), TRAIN_SAVE_VALIDATE)
    assert folded(10**12, 100, save_every=1000) == [Repeat(10**9, cycle)]
    assert folded(2500, 100, save_every=1000) == [Repeat(2, cycle), Repeat(5, (TRAIN_VALIDATE,))]


def test_cycles_inside_cycles_are_folded() -> None:
    loop = TrainingLoop(num_steps=2400, eval_frequency=100)
    inner = (Repeat(2, (TRAIN_VALIDATE,)), Block(100, False, True, ("cloze",)))
    last = (Repeat(2, (TRAIN_VALIDATE,)), Block(100, True, True, ("cloze",)))
    plan = plan_fit(loop, None, val={"val": 3}, save_every=1200, downstream={"cloze": 3})
    assert encode(plan) == [Repeat(2, (Repeat(3, inner), *last))]


@pytest.mark.parametrize("save_every", [997, 99_991])
def test_cadences_without_a_short_cycle_are_cut_short(save_every: int) -> None:
    items = folded(10**12, 1009, save_every=save_every)
    assert num_entries(items) <= 20
    assert isinstance(items[-2], Elided)
    assert items[-1] == Block(10**12 - items[-2].stop, False, True, ())


def test_the_folded_form_as_json() -> None:
    loop = TrainingLoop(num_steps=30, eval_frequency=10)
    plan = plan_fit(loop, None, val={"val": 3}, save_last=True, downstream={"cloze": 3})
    assert encoded_json(encode(plan)) == [
        {"repeat": 2, "stages": [{"train": 10, "save": False, "validate": True, "downstream": []}]},
        {"train": 10, "save": True, "validate": True, "downstream": ["cloze"]},
    ]
    assert encoded_json([Elided(3, 9)]) == [{"elided": [3, 9]}]


def test_a_plan_with_nothing_to_do_is_empty() -> None:
    assert encode(plan_fit(TrainingLoop(max_steps=3), 10, start_step=3)) == []
