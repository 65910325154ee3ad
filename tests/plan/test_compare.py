"""Comparison of two plans: differences that prevent a resume, and allowed changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from loopwright.loop import TrainingLoop
from loopwright.plan import plan_differences, plan_extensions, plan_fit
from strategies import FitCase, fit_cases

SETTINGS: dict[str, Any] = {"max_steps": 100, "eval_frequency": 0.1, "eval_steps": 5, "grad_accum_steps": 2}
OPTIONS: dict[str, Any] = {"val": {"val/a": 10, "val/b": 20}, "save_every": 10, "downstream": {"cloze": 2}}


def compare(
    num_micro_batches: int = 45, loop: dict[str, Any] | None = None, **options: Any
) -> tuple[list[str], list[str]]:
    """Return (differences, extensions) between the plan with these changes and the original plan."""
    old = plan_fit(TrainingLoop(**SETTINGS), 45, **OPTIONS).settings()
    new = plan_fit(TrainingLoop(**{**SETTINGS, **(loop or {})}), num_micro_batches, **{**OPTIONS, **options}).settings()
    return plan_differences(old, new), plan_extensions(old, new)


def test_the_same_plan_does_not_differ() -> None:
    assert compare() == ([], [])


@given(case=fit_cases())
def test_settings_survive_json(case: FitCase) -> None:
    settings = case.plan.settings()
    read = json.loads(json.dumps(settings))
    assert read == settings
    assert plan_differences(settings, read) == plan_extensions(settings, read) == []


@given(case=fit_cases())
def test_the_rest_of_a_plan_has_the_settings_of_the_whole(case: FitCase) -> None:
    assert case.plan.after(case.plan.stop_step).settings() == case.plan.settings()


def test_a_later_end_is_an_extension_and_moves_a_fractional_cadence() -> None:
    assert compare(loop={"max_steps": 200}) == (
        [],
        [
            "a later end, global_step 100 -> 200 (loop.max_steps: 100 -> 200)",
            "eval_frequency=0.1: every 10 -> 20 steps",
        ],
    )
    assert compare(loop={"max_steps": 200, "eval_frequency": 10})[0] == []


def test_other_saves_at_validations_are_allowed_and_listed() -> None:
    assert compare(save_at_validations=True) == ([], ["checkpoint.at_validations: false -> true"])


def test_an_earlier_end_is_a_difference() -> None:
    assert compare(loop={"max_steps": 50, "eval_frequency": 10}) == (
        ["an earlier end, global_step 100 -> 50 (loop.max_steps: 100 -> 50)"],
        [],
    )


def test_equivalent_settings_do_not_differ() -> None:
    assert compare(loop={"eval_frequency": 10}) == ([], [])
    assert compare(loop={"max_steps": None, "num_steps": 100}) == ([], [])


def in_epochs(eval_frequency: int | str, save_every: int | str, **settings: Any) -> Any:
    loop = TrainingLoop(max_steps=200, eval_frequency=eval_frequency, **settings)
    return plan_fit(loop, 45, val={"val": 3}, save_every=save_every).settings()


def test_epochs_and_the_equal_number_of_steps_do_not_differ() -> None:
    old, new = in_epochs("1 epoch", "2 epochs"), in_epochs(45, 90)
    for pair in ((old, new), (new, old), (old, old)):
        assert plan_differences(*pair) == plan_extensions(*pair) == []


def test_other_steps_in_an_epoch_are_a_difference() -> None:
    old, new = in_epochs("1 epoch", "2 epochs"), in_epochs("1 epoch", "2 epochs", steps_per_epoch=40)
    lines = ["checkpoint.every_n_steps: 90 -> 80", "eval_frequency=1 epoch: every 45 -> 40 steps"]
    assert (plan_differences(old, new), plan_extensions(old, new)) == (lines, [])
    lines = ["checkpoint.every_n_steps: 90 -> 45", "loop.eval_frequency: 1 epoch -> 40"]
    assert plan_differences(old, in_epochs(40, "1 epoch")) == lines


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"loop": {"grad_accum_steps": 4}}, ["loop.grad_accum_steps: 2 -> 4"]),
        ({"loop": {"eval_frequency": 20}}, ["loop.eval_frequency: 0.1 -> 20"]),
        (
            {"loop": {"eval_steps": 15}},
            ["validate.val/a: 5 -> 10", "validate.val/b: 5 -> 15", "loop.eval_steps: 5 -> 15"],
        ),
        ({"num_micro_batches": 90}, ["train.num_micro_batches: 45 -> 90"]),
        ({"save_every": None}, ["checkpoint.every_n_steps: 10 -> null"]),
        ({"save_last": True}, ["checkpoint.save_last: false -> true"]),
        ({"downstream": {"cloze": 3}}, ["downstream.cloze: 2 -> 3"]),
        ({"downstream": {}}, ["downstream.cloze: 2 -> null"]),
        ({"start_micro_batch": 3}, ["start_micro_batch: 0 -> 3"]),
        ({"val": {"val/a": 10, "val/c": 2}}, ["validate.val/b: 5 -> null", "validate.val/c: null -> 2"]),
        (
            {"val": {"val/b": 20, "val/a": 10}},
            [
                "order of validation: validate.val/a, validate.val/b, downstream.cloze -> "
                "validate.val/b, validate.val/a, downstream.cloze"
            ],
        ),
    ],
    ids=str,
)
def test_everything_else_is_a_difference(changes: dict[str, Any], lines: list[str]) -> None:
    assert compare(**changes) == (lines, [])


def test_switching_validation_off_is_a_difference() -> None:
    differences, extensions = compare(loop={"eval_frequency": None})
    assert "loop.eval_frequency: 0.1 -> null" in differences
    assert extensions == []
