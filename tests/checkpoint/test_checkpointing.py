from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy
import pytest

from loopwright.checkpoint import Checkpointing


def test_settings_are_shown_and_cannot_be_set() -> None:
    settings = Checkpointing(100, 3, 500, "val/accuracy", "max", "continue")
    names = ("every_n_steps", "keep_last", "keep_every", "monitor", "mode", "on_save_error")
    assert [getattr(settings, name) for name in names] == [100, 3, 500, "val/accuracy", "max", "continue"]
    assert [getattr(Checkpointing(), name) for name in names] == [None, None, None, None, "min", "stop"]
    for name in names:
        with pytest.raises(AttributeError):
            setattr(settings, name, 1)


def test_settings_are_a_frozen_dataclass_of_plain_values() -> None:
    settings = Checkpointing(every_n_steps=numpy.int64(5), keep_last=numpy.uint8(2))
    assert [type(value) for value in (settings.every_n_steps, settings.keep_last)] == [int, int]
    assert replace(settings, keep_every=10) == Checkpointing(5, 2, 10)
    with pytest.raises(ValueError, match=r"^keep_every=12: expected a multiple"):
        replace(settings, keep_every=12)


@pytest.mark.parametrize("value", [0, -1, True, 2.5, "5", float("nan")])
@pytest.mark.parametrize("name", ["every_n_steps", "keep_last", "keep_every"])
def test_invalid_counts_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.*: expected a whole number of [a-z]+, 1 or more, .*or null"):
        Checkpointing(**{name: value})


def test_intervals_accept_text_in_epochs() -> None:
    settings = Checkpointing(every_n_steps="0.5 epochs", keep_last=2, keep_every="1.5 epochs")
    assert (settings.every_n_steps, settings.keep_every) == ("0.5 epochs", "1.5 epochs")
    mixed = Checkpointing(every_n_steps=100, keep_last=2, keep_every="1 epoch")  # the plan compares the steps
    assert (mixed.every_n_steps, mixed.keep_every) == (100, "1 epoch")


def test_text_of_another_form_is_refused() -> None:
    expected = "expected a whole number of steps, 1 or more, text such as '2 epochs', or null; use '2 epochs'."
    with pytest.raises(TypeError) as caught:
        Checkpointing(every_n_steps="2ep")
    assert str(caught.value) == f"every_n_steps='2ep': {expected}"
    with pytest.raises(TypeError, match=r"^keep_last='1 epoch': expected a whole number of checkpoints"):
        Checkpointing(keep_last="1 epoch")  # type: ignore[arg-type]


def test_epochs_to_keep_must_be_a_multiple_of_the_epochs_between_saves() -> None:
    with pytest.raises(ValueError, match=r"^keep_every='1 epoch': expected a multiple of every_n_steps='0.3 epochs', "
                                         r"because other steps may not be saved; try '0.9 epochs'\.$"):  # fmt: skip
        Checkpointing(every_n_steps="0.3 epochs", keep_last=2, keep_every="1 epoch")


@pytest.mark.parametrize(
    "arguments",
    [{"mode": "best"}, {"monitor": ""}, {"monitor": 3}, {"on_save_error": "ignore"},
     {"on_save_error": None}],
)  # fmt: skip
def test_invalid_names_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(arguments))}=.*: expected "):
        Checkpointing(**arguments)


@pytest.mark.parametrize("name", ["background", "at_validations"])
def test_other_values_than_true_and_false_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}=1: expected true or false\.$"):
        Checkpointing(**{name: 1})


def test_a_new_setting_keeps_the_order_of_the_others() -> None:
    settings = Checkpointing(100, 3, 500, "val/loss", "min", "continue", True)
    assert settings.background and settings.at_validations and settings.every_n_steps == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_steps": 5}, "keep_every=12: keep_last=null already keeps all checkpoints; expected keep_last"),
        ({"keep_last": 2}, "keep_every=12: every_n_steps=null saves none of its multiples; expected every_n_steps as"),
        ({"keep_last": 2, "every_n_steps": 5}, "keep_every=12: expected a multiple of every_n_steps=5, .*; try 10."),
        ({"keep_last": 2, "every_n_steps": 50}, "keep_every=12: expected a multiple of every_n_steps=50, .*; try 50."),
    ],
)
def test_a_keep_every_without_effect_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}"):
        Checkpointing(keep_every=12, **arguments)
