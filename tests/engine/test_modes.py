"""Training and evaluation mode of each module during a fit and after it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from torch import nn

from loopwright.engine.modes import evaluating, training
from tiny import Regression


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def frozen() -> Regression:
    """A model in training mode but for one layer."""
    model = Regression(dropout=0.5)
    model.layers[2].eval()
    return model


def test_a_module_frozen_in_evaluation_mode_stays_so() -> None:
    """Catches a frozen batch norm whose statistics the fit moves."""
    model = frozen()
    before = modes(model)
    with training(model):
        assert modes(model) == before
        with evaluating(model):
            assert not any(modes(model))
        assert modes(model) == before
    assert modes(model) == before


def test_a_model_found_in_evaluation_mode_is_trained_as_a_whole_and_left_as_found() -> None:
    """Catches a model from a checkpoint hub that is trained without its dropout."""
    model = Regression(dropout=0.5).eval()
    with training(model):
        assert all(modes(model))
    assert not any(modes(model))


@pytest.mark.parametrize("mode", [training, evaluating])
def test_modes_are_given_back_after_an_error(mode: Callable[[nn.Module], AbstractContextManager[None]]) -> None:
    """Catches a model that stays in evaluation mode after a validation that failed."""
    model = frozen()
    before = modes(model)
    with pytest.raises(KeyError), mode(model):
        raise KeyError
    assert modes(model) == before
