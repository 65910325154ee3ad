"""`Single`: one process with the whole model. It calls the module directly, without communication."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from loopwright.device import Cpu, Single
from loopwright.precision import Precision


def set_up(model: nn.Module) -> Single:
    strategy = Single()
    strategy.set_up(model, Cpu(), Precision())
    return strategy


def test_a_forward_is_the_module_itself_without_an_additional_call() -> None:
    model = nn.Linear(2, 1)
    strategy = set_up(model)
    assert strategy.call is model
    assert strategy.evaluate is model
    assert not strategy.is_sharded


def test_a_model_that_was_not_set_up_cannot_be_called() -> None:
    with pytest.raises(RuntimeError, match="call set_up first"):
        _ = Single().call


def test_a_whole_tensor_has_no_gradient_and_is_on_the_host() -> None:
    model = nn.Linear(2, 1)
    whole = set_up(model).whole(model.weight)
    assert torch.equal(whole, model.weight) and not whole.requires_grad


def test_contexts_and_buffers_are_unchanged() -> None:
    model = nn.BatchNorm1d(2)
    strategy = set_up(model)
    strategy.begin_window()
    with strategy.synchronised(False):
        strategy.take_part(None)
        strategy.equalise_buffers()
    assert model.running_mean is not None and model.running_mean.tolist() == [0.0, 0.0]
