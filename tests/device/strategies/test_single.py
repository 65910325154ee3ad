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


def test_numbers_are_summed_over_a_step_and_reset_for_the_next_step() -> None:
    strategy = set_up(nn.Linear(2, 1))
    weight = torch.ones(1, requires_grad=True)
    strategy.backward((weight * 3).sum(), torch.tensor([2.0, 0.0]))
    strategy.backward(None, torch.tensor([5.0, 1.0]))
    assert weight.grad is not None and weight.grad.tolist() == [3.0]
    assert strategy.agreed().tolist() == [7.0, 1.0]
    strategy.backward(None, torch.tensor([1.0, 0.0]))
    assert strategy.agreed().tolist() == [1.0, 0.0]
    with pytest.raises(RuntimeError, match="call backward first"):
        strategy.agreed()


def test_the_given_numbers_are_not_changed() -> None:
    strategy, given = set_up(nn.Linear(2, 1)), torch.tensor([2.0])
    strategy.backward(None, given)
    strategy.backward(None, given)
    assert given.tolist() == [2.0]


def test_a_whole_tensor_has_no_gradient_and_is_on_the_host() -> None:
    model = nn.Linear(2, 1)
    whole = set_up(model).whole(model.weight)
    assert torch.equal(whole, model.weight) and not whole.requires_grad


def test_contexts_and_buffers_are_unchanged() -> None:
    model = nn.BatchNorm1d(2)
    strategy = set_up(model)
    with strategy.synchronised(False):
        strategy.equalise_buffers()
    assert model.running_mean is not None and model.running_mean.tolist() == [0.0, 0.0]
