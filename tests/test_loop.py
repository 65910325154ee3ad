"""The values that loops accept and refuse at construction."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy
import pytest

from loopwright.hooks import HOOKS, Callback
from loopwright.loop import LoopCallback, TrainingLoop, ValidationLoop

NAN, INF = math.nan, math.inf
NOT_COUNTS = [True, False, 0, 2.5, 5.0, "5", -1, NAN, INF, -INF, [], numpy.float64(3), numpy.bool_(True), Fraction(2)]
OPTIONAL_COUNTS = ["num_steps", "max_steps", "num_epochs", "steps_per_epoch", "eval_steps"]
DEFAULTS = {
    "num_steps": None,
    "max_steps": None,
    "num_epochs": None,
    "steps_per_epoch": None,
    "eval_frequency": 1.0,
    "eval_steps": None,
    "grad_accum_steps": 1,
    "eval_at_start": False,
}


def message_of(construct: Callable[..., object], **settings: Any) -> str:
    """Return the one-line message of the error for ``settings``."""
    with pytest.raises(ValueError) as caught:
        construct(**settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_loops_are_callbacks_with_positional_arguments_in_the_documented_order() -> None:
    loop = TrainingLoop(10, 20, None, 5, 0.5, 3, 2, True)
    assert isinstance(loop, LoopCallback)
    assert isinstance(loop, Callback)
    assert [getattr(loop, name) for name in DEFAULTS] == [10, 20, None, 5, 0.5, 3, 2, True]
    assert isinstance(loop.val_loop, ValidationLoop)
    assert (loop.val_loop.eval_steps, loop.val_loop.hook) == (3, "validate")
    validation = ValidationLoop(7, "cloze")
    assert isinstance(validation, LoopCallback)
    assert (validation.eval_steps, validation.hook) == (7, "cloze")


def test_defaults_are_those_of_the_table() -> None:
    signature = inspect.signature(TrainingLoop)
    assert {name: parameter.default for name, parameter in signature.parameters.items()} == DEFAULTS
    assert {name: getattr(TrainingLoop(), name) for name in DEFAULTS} == DEFAULTS
    assert (ValidationLoop().eval_steps, ValidationLoop().hook) == (None, "validate")


@pytest.mark.parametrize("name", [*DEFAULTS, "val_loop"])
def test_settings_of_a_training_loop_are_read_only(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(TrainingLoop(), name, 1)


@pytest.mark.parametrize("name", ["eval_steps", "hook", "hook_names"])
def test_settings_of_a_validation_loop_are_read_only(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(ValidationLoop(), name, 1)
    with pytest.raises(TypeError):
        ValidationLoop().hook_names["start"] = "on_train_start"  # type: ignore[index]


def test_a_loop_callback_itself_cannot_be_instantiated() -> None:
    with pytest.raises(TypeError, match=r"LoopCallback: .*TrainingLoop.*ValidationLoop"):
        LoopCallback()


def test_both_loops_can_be_subclassed() -> None:
    class Noted(ValidationLoop):
        def __init__(self, note: str) -> None:
            super().__init__(eval_steps=3, hook="noted")
            self.note = note

    assert (Noted("x").note, Noted("x").eval_steps, Noted("x").hook_names["start"]) == ("x", 3, "on_noted_start")


@pytest.mark.parametrize("name", OPTIONAL_COUNTS)
@pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
def test_optional_counts_refuse_all_but_whole_numbers(name: str, value: object) -> None:
    message = message_of(TrainingLoop, **{name: value})
    assert message.startswith(f"{name}={value!r}: expected a whole number of ")
    assert "1 or more, or null" in message


@pytest.mark.parametrize("value", [*NOT_COUNTS, None], ids=repr)
def test_grad_accum_steps_refuses_all_but_whole_numbers(value: object) -> None:
    given = "null" if value is None else repr(value)
    expected = f"grad_accum_steps={given}: expected a whole number of micro-batches per step, 1 or more."
    assert message_of(TrainingLoop, grad_accum_steps=value) == expected


@pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
def test_eval_steps_of_a_validation_loop_refuses_all_but_whole_numbers(value: object) -> None:
    assert message_of(ValidationLoop, eval_steps=value).startswith(f"eval_steps={value!r}: expected a whole number")


@pytest.mark.parametrize(
    "value",
    [True, False, "5", "0.5", -1, -0.5, 1.5, 2.5, 100.0, NAN, INF, -INF, [], 1j, Fraction(1, 2), numpy.bool_(False)],
    ids=repr,
)
def test_eval_frequency_refuses_values_that_are_neither_steps_nor_a_fraction(value: object) -> None:
    message = message_of(TrainingLoop, eval_frequency=value)
    expected = "expected a positive whole number of steps, a fraction in (0, 1], or text such as '2 epochs'; use "
    assert message.startswith(f"eval_frequency={value!r}: {expected}")


@pytest.mark.parametrize("value", ["1 epoch", "2 epochs", "0.5 epochs", "007.250 epochs", "1 epochs"])
def test_eval_frequency_accepts_text_in_epochs(value: str) -> None:
    assert TrainingLoop(eval_frequency=value).eval_frequency == value


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("2epochs", "use '2 epochs'."),
        ("2 EPOCHS", "use '2 epochs'."),
        ("1ep", "use '1 epoch'."),
        (" .50 epoch", "use '0.5 epochs'."),
        ("5", "use 5, a number without quotes."),
        ("100 steps", "use 100, a number without quotes."),
        ("0 epochs", "use null to turn validation off."),
        ("0.0 epochs", "use null to turn validation off."),
        ("-1 epochs", "use null to turn validation off."),
        ("1e3 epochs", "use null to turn validation off."),
        ("1/2 epochs", "use null to turn validation off."),
        ("\u0661 epoch", "use null to turn validation off."),  # a digit that is not ASCII
        ("1 epoch\n", "use '1 epoch'."),
        ("epoch", "use null to turn validation off."),
        ("", "use null to turn validation off."),
        ("9" * 5000 + " epochs", "use null to turn validation off."),
    ],
)
def test_other_text_is_refused_with_the_nearest_text_that_is_accepted(value: str, remedy: str) -> None:
    with pytest.raises(TypeError) as caught:
        TrainingLoop(eval_frequency=value)
    message = str(caught.value)
    assert message.endswith(f" or text such as '2 epochs'; {remedy}") and len(message) < 250


def test_a_refused_eval_frequency_comes_with_a_remedy() -> None:
    assert message_of(TrainingLoop, eval_frequency=1.5) == (
        "eval_frequency=1.5: expected a positive whole number of steps, a fraction in (0, 1], or text such as "
        "'2 epochs'; use null to turn validation off."
    )
    assert message_of(TrainingLoop, eval_frequency=100.0).endswith("; use 100.")


@pytest.mark.parametrize("value", [None, 0, 0.0, -0.0, 1, 1.0, 100, 10**12, 0.07, 1e-9, 5e-324, 1 - 2**-53], ids=repr)
def test_eval_frequency_accepts_steps_fractions_and_never(value: int | float | None) -> None:
    kept = TrainingLoop(eval_frequency=value).eval_frequency
    assert kept == value
    assert type(kept) is type(value)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (numpy.float64(0.07), 0.07),
        (numpy.float32(0.07), 0.07),
        (numpy.float64(1), 1.0),
        (numpy.int64(7), 7),
        (numpy.uint8(0), 0),
    ],
    ids=repr,
)
def test_numpy_numbers_become_plain_numbers(value: Any, kept: float) -> None:
    given = TrainingLoop(eval_frequency=value).eval_frequency
    assert (given, type(given)) == (kept, type(kept))


def test_numpy_counts_become_plain_ints() -> None:
    loop = TrainingLoop(numpy.int64(3), eval_steps=numpy.int32(2), grad_accum_steps=numpy.uint8(4))
    assert [type(value) for value in (loop.num_steps, loop.eval_steps, loop.grad_accum_steps)] == [int, int, int]


def test_num_steps_and_num_epochs_exclude_each_other() -> None:
    message = message_of(TrainingLoop, num_steps=20, num_epochs=3)
    assert message.startswith("num_epochs=3: expected null beside num_steps=20")
    assert "loop.num_steps=null or loop.num_epochs=null" in message


@pytest.mark.parametrize("value", [None, True, 1, 2.5, b"validate"], ids=repr)
def test_a_hook_of_another_type_is_refused(value: object) -> None:
    given = "null" if value is None else repr(value)
    with pytest.raises(TypeError) as caught:
        ValidationLoop(hook=value)  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"hook={given}: expected a word such as validate")


@pytest.mark.parametrize("value", ["", "two words", "my-hook", "a.b", "2x", "x\n", "on/x"])
def test_a_hook_that_is_not_a_word_is_refused(value: str) -> None:
    assert message_of(ValidationLoop, hook=value).startswith(f"hook={value!r}: expected a word such as validate")


@pytest.mark.parametrize("value", ["train", "fit", "train_batch", "train_step", "validate_batch", "validate_step"])
def test_a_hook_with_the_names_of_other_hooks_is_refused(value: str) -> None:
    message = message_of(ValidationLoop, hook=value)
    assert message.startswith(f"hook={value!r}: expected a word that gives new hook names; on_{value}_")


def test_hook_names_of_validate_are_hooks_and_others_are_named_alike() -> None:
    events = ["start", "end", "exception", "batch_start", "batch_end", "step_start", "step_end"]
    names = ValidationLoop().hook_names
    assert list(names) == events
    assert set(names.values()) <= set(HOOKS)
    assert dict(ValidationLoop(hook="my_hook").hook_names) == {event: f"on_my_hook_{event}" for event in events}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_docstring_describes_each_setting(name: str) -> None:
    assert f"\n    {name}: " in inspect.cleandoc(TrainingLoop.__doc__ or "")
