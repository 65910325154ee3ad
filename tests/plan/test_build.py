"""`plan_fit`: the settings that it refuses, and its notes on how it interprets settings."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from loopwright.loop import TrainingLoop, ValidationLoop
from loopwright.plan import Plan, Validate, plan_fit

LOOP = TrainingLoop(num_steps=10)


def refusal_of(loop: TrainingLoop, num_micro_batches: int | None, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        plan_fit(loop, num_micro_batches, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def notes_of(loop: TrainingLoop, num_micro_batches: int | None = 50, **options: Any) -> list[str]:
    return list(plan_fit(loop, num_micro_batches, **options).notes)


def test_a_validation_loop_is_refused_with_a_hint() -> None:
    with pytest.raises(TypeError, match=r"loop=.*expected a TrainingLoop; a ValidationLoop is for validate"):
        plan_fit(ValidationLoop(), 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, 2.5, "5", -1, float("nan")], ids=repr)
@pytest.mark.parametrize("name", ["start_step", "start_micro_batch", "num_micro_batches", "val"])
def test_lengths_and_positions_are_whole_numbers(name: str, value: object) -> None:
    options: dict[str, Any] = {"num_micro_batches": 10, name: {"val": value} if name == "val" else value}
    with pytest.raises(ValueError) as caught:
        plan_fit(LOOP, **options)
    shown = "val['val']" if name == "val" else name
    assert str(caught.value) == f"{shown}={value!r}: expected a whole number, 0 or more."


@pytest.mark.parametrize("value", [True, 0, 2.5, "5", -1], ids=repr)
def test_cadences_are_counts(value: Any) -> None:
    assert refusal_of(LOOP, 10, save_every=value).startswith(f"save_every={value!r}: expected a whole number of steps")
    refused = refusal_of(LOOP, 10, downstream={"cloze": value})
    assert refused == f"downstream['cloze']={value!r}: expected a whole number of validations, 1 or more."


@pytest.mark.parametrize("name", ["save_last", "save_at_validations"])
def test_rules_of_saving_are_true_or_false(name: str) -> None:
    assert refusal_of(LOOP, 10, **{name: 1}) == f"{name}=1: expected true or false."


def test_an_empty_training_dataloader_is_refused() -> None:
    assert refusal_of(LOOP, 0).startswith("num_micro_batches=0: expected a training dataloader of 1 micro-batch")


def test_more_micro_batches_a_step_than_a_pass_has_are_refused() -> None:
    loop = TrainingLoop(num_steps=10, grad_accum_steps=46)
    assert refusal_of(loop, 45).startswith("grad_accum_steps=46: expected at most 45, the micro-batches of one pass")
    assert plan_fit(loop, 46).total_micro_batches == 460
    assert plan_fit(loop, None).total_micro_batches == 460


def test_a_start_beyond_the_pass_is_refused() -> None:
    assert refusal_of(LOOP, 45, start_micro_batch=46).startswith("start_micro_batch=46: expected at most 45")
    assert plan_fit(LOOP, 45, start_micro_batch=45).window(0) == (1, 0, 1)


def test_an_empty_validation_dataloader_is_refused_where_it_would_be_validated() -> None:
    refused = refusal_of(LOOP, 45, val={"val/dev": 0})
    assert refused.startswith("len(val/dev)=0: expected a validation dataloader of 1 batch or more; give it data")
    assert list(plan_fit(TrainingLoop(num_steps=10, eval_frequency=None), 45, val={"val/dev": 0}).val) == []


def test_a_validation_dataloader_of_unknown_length_needs_eval_steps() -> None:
    refused = refusal_of(LOOP, 45, val={"val": None})
    assert refused.startswith("eval_steps=null: expected a number of validation batches, because the length of ")
    assert "'val'" in refused
    plan = plan_fit(TrainingLoop(num_steps=10, eval_steps=7), 45, val={"val": None})
    assert list(plan)[-1] == Validate(10, "val", 7)
    assert plan_fit(TrainingLoop(num_steps=10, eval_frequency=0), 45, val={"val": None}).eval_every is None


def test_downstream_validations_need_no_dataloader() -> None:
    plan = plan_fit(TrainingLoop(num_steps=10, eval_frequency=3), None, downstream={"cloze": 2})
    assert [stage.step for stage in plan if not hasattr(stage, "start")] == [6, 10]
    assert plan.num_validations(10) == 4


def test_two_validations_of_one_name_are_refused() -> None:
    assert refusal_of(LOOP, 45, val={"val": 3}, downstream={"val": 1}).startswith("downstream='val': expected a name")


def test_numpy_integers_are_accepted() -> None:
    plan = plan_fit(LOOP, numpy.int64(45), val={"val": numpy.int32(3)}, start_step=numpy.int64(2))
    assert plan == plan_fit(LOOP, 45, val={"val": 3}, start_step=2)
    assert type(plan.start_step) is int


def test_empty_mappings_are_the_same_as_none() -> None:
    assert plan_fit(LOOP, 45, val={}, downstream={}) == plan_fit(LOOP, 45)


@pytest.mark.parametrize(
    ("eval_frequency", "note"),
    [
        (1, "eval_frequency=1: after every step, 100 in all; to validate once, at the end, use 1.0"),
        (1.0, "eval_frequency=1.0: once, at the end; to validate after every step, use 1"),
        (0.07, "eval_frequency=0.07: every 7 of 100 steps"),
        (500, "eval_frequency=500: more than the 100 steps of this fit, so once, at the end"),
        (20, None),
        (None, None),
    ],
)
def test_a_note_explains_how_eval_frequency_is_interpreted(
    eval_frequency: int | float | None, note: str | None
) -> None:
    loop = TrainingLoop(num_steps=100, eval_frequency=eval_frequency)
    assert notes_of(loop, val={"val": 3}) == ([] if note is None else [note])


def test_validation_at_every_step_of_more_than_100_gives_a_warning() -> None:
    def plan(num_steps: int, eval_frequency: int | float, **options: Any) -> Plan:
        return plan_fit(TrainingLoop(num_steps=num_steps, eval_frequency=eval_frequency), 50, **options)

    warned = plan(101, 1, val={"val": 3})
    assert warned.warnings == ("eval_frequency=1: after every step, 101 in all; to validate once, at the end, use 1.0",)
    assert set(warned.warnings) <= set(warned.notes)
    assert plan(100, 1, val={"val": 3}).warnings == ()
    assert plan(101, 1).warnings == ()
    assert plan(101, 1.0, val={"val": 3}).warnings == ()
    assert plan(101, 2, val={"val": 3}).warnings == ()


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (
            {"save_every": 15, "save_at_validations": True},
            "220 checkpoints are saved; to save fewer, use checkpoint.at_validations=false",
        ),
        (
            {"save_every": 9, "save_at_validations": True},
            "300 checkpoints are saved; to save fewer, use checkpoint.at_validations=false and "
            "a larger checkpoint.every_n_steps",
        ),
        ({"save_every": 9}, "233 checkpoints are saved; to save fewer, use a larger checkpoint.every_n_steps"),
        ({"save_every": 15}, None),
        ({"save_every": 1100, "save_last": True, "save_at_validations": True}, None),
    ],
    ids=str,
)
def test_more_than_200_saves_give_a_note_and_a_warning_if_they_are_at_validations(
    options: dict[str, Any], note: str | None
) -> None:
    options["val"] = {"val": 3}
    plan = plan_fit(TrainingLoop(num_steps=2100, eval_frequency=21), 50, **options)
    assert plan.notes == (() if note is None else (note,))
    assert plan.warnings == (plan.notes if "at_validations" in str(note) else ())


def test_too_many_eval_steps_are_limited_with_a_note() -> None:
    loop = TrainingLoop(num_steps=100, eval_frequency=20, eval_steps=50)
    plan = plan_fit(loop, 50, val={"val/a": 3, "val/b": 50, "val/c": None})
    assert [entry.num_batches for entry in plan.val] == [3, 50, 50]
    assert plan.notes == ("eval_steps=50: val/a has only 3 batches, which are validated once each",)


def test_settings_without_effect_get_a_note() -> None:
    loop = TrainingLoop(num_steps=100, eval_frequency=20, eval_steps=50)
    assert notes_of(loop) == [
        "eval_frequency=20 has no effect: there is no validation dataloader",
        "eval_steps=50 has no effect: there is no validation dataloader",
    ]
    assert notes_of(TrainingLoop(num_steps=100)) == []
