"""Lengths in epochs: the accepted text, and exact numbers of steps."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.errors import SettingError
from loopwright.loop import TrainingLoop
from loopwright.plan import Plan, Save, Validate, plan_fit
from loopwright.plan.cadence import steps_between_validations
from loopwright.plan.epochs import read_epochs, show_epochs, whole_epochs

NUMBERS = st.decimals(min_value="0.001", max_value=10**6, places=3)


def plan(num_micro_batches: int | None = 45, **settings: Any) -> Plan:
    names = ("start_step", "start_micro_batch", "save_every", "keep_every", "val")
    options = {name: settings.pop(name) for name in names if name in settings}
    return plan_fit(
        TrainingLoop(**{"max_steps": 1000, **settings}), num_micro_batches, **{"val": {"val": 3}, **options}
    )


def validated(plan: Plan) -> list[int]:
    return [stage.step for stage in plan if isinstance(stage, Validate)]


def saved(plan: Plan) -> list[int]:
    return [stage.step for stage in plan if isinstance(stage, Save)]


@given(number=NUMBERS, steps_per_epoch=st.integers(1, 10**9), num_steps=st.integers(1, 10**9))
def test_steps_between_validations_are_the_product_rounded_up(
    number: Decimal, steps_per_epoch: int, num_steps: int
) -> None:
    every = steps_between_validations(f"{number} epochs", num_steps, steps_per_epoch)
    assert every == ceil(Fraction(number) * steps_per_epoch)


@given(number=NUMBERS, steps_per_epoch=st.integers(1, 10**4), multiple_of=st.integers(1, 50))
def test_other_intervals_are_the_product_or_refused(number: Decimal, steps_per_epoch: int, multiple_of: int) -> None:
    exact = Fraction(number) * steps_per_epoch
    if exact.denominator == 1:
        assert whole_epochs("x", f"{number} epochs", steps_per_epoch, multiple_of) == exact
        return
    with pytest.raises(SettingError) as caught:
        whole_epochs("x", f"{number} epochs", steps_per_epoch, multiple_of)
    nearest = int(str(caught.value).removesuffix(".").rpartition("x=")[2])
    others = [steps for steps in (nearest - multiple_of, nearest + multiple_of) if steps > 0]
    assert nearest > 0 and nearest % multiple_of == 0
    assert all(abs(nearest - exact) <= abs(steps - exact) for steps in others)


@given(number=NUMBERS)
def test_text_of_a_number_is_read_back(number: Decimal) -> None:
    assert read_epochs(show_epochs(Fraction(number))) == Fraction(number)


@given(
    number=st.decimals(min_value="0.01", max_value=3, places=2),
    num_micro_batches=st.integers(1, 30),
    per_step=st.integers(1, 8),
    start=st.tuples(st.integers(0, 20), st.integers(0, 30)),
    data=st.data(),
)
def test_a_plan_in_epochs_is_the_plan_with_the_number_of_steps(
    number: Decimal, num_micro_batches: int, per_step: int, start: tuple[int, int], data: st.DataObject
) -> None:
    per_step = min(per_step, num_micro_batches)
    per_pass = -(-num_micro_batches // per_step)
    steps_per_epoch = data.draw(st.none() | st.integers(1, per_pass))
    settings: dict[str, Any] = {
        "num_steps": 40,
        "max_steps": None,
        "grad_accum_steps": per_step,
        "steps_per_epoch": steps_per_epoch,
        "start_step": start[0],
        "start_micro_batch": min(start[1], num_micro_batches),
    }
    epoch = steps_per_epoch or per_pass
    every = ceil(Fraction(number) * epoch)
    in_epochs = plan(num_micro_batches, eval_frequency=f"{number} epochs", save_every="2 epochs", **settings)
    in_steps = plan(num_micro_batches, eval_frequency=every, save_every=2 * epoch, **settings)
    assert list(in_epochs) == list(in_steps)
    step = data.draw(st.integers(in_epochs.start_step, in_epochs.stop_step))
    assert list(in_epochs.after(step)) == list(in_steps.after(step))
    assert in_epochs.steps_per_epoch == epoch


def test_validations_count_from_the_start_of_the_fit_and_saves_are_multiples_of_global_step() -> None:
    ours = plan(20, max_steps=40, eval_frequency="0.5 epochs", save_every="0.5 epochs", start_step=4)
    assert (validated(ours), saved(ours)) == ([14, 24, 34, 40], [10, 20, 30, 40])


def test_an_epoch_is_a_pass_of_steps_not_of_micro_batches() -> None:
    assert plan(45, eval_frequency="1 epoch", grad_accum_steps=2).eval_every == 23
    assert plan(45, eval_frequency="1 epoch", grad_accum_steps=2, steps_per_epoch=10).eval_every == 10


@pytest.mark.parametrize("val", [{}, {"val": 3}])
@pytest.mark.parametrize("name", ["eval_frequency", "save_every", "keep_every"])
def test_an_unknown_length_needs_steps_per_epoch(name: str, val: dict[str, int]) -> None:
    setting = {"save_every": "checkpoint.every_n_steps", "keep_every": "checkpoint.keep_every"}.get(name, name)
    with pytest.raises(SettingError) as caught:
        plan(None, val=val, **{name: "2 epochs"})
    assert str(caught.value) == (
        f"steps_per_epoch=null: expected the steps of an epoch, which {setting}='2 epochs' needs if the training "
        "dataloader is of unknown length; use for example loop.steps_per_epoch=100."
    )
    assert plan(None, val=val, steps_per_epoch=100, **{name: "2 epochs"}).steps_per_epoch == 100


def test_steps_per_epoch_has_an_effect_if_an_interval_is_in_epochs() -> None:
    for setting in ({"eval_frequency": "1 epoch"}, {"save_every": "1 epoch"}):
        assert not any("has no effect" in note for note in plan(steps_per_epoch=10, **setting).notes)
