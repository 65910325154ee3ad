"""One process with the whole model: a forward is the module's own, and nothing communicates."""

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


def test_forwards_are_the_module_itself_so_that_they_cost_no_further_call() -> None:
    model = nn.Linear(2, 1)
    strategy = set_up(model)
    assert strategy.call is model
    assert strategy.evaluate is model
    assert not strategy.is_sharded


def test_a_model_that_was_not_set_up_cannot_be_called() -> None:
    with pytest.raises(RuntimeError, match="call set_up first"):
        _ = Single().call


def test_words_are_summed_over_a_window_and_the_next_window_begins_anew() -> None:
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


def test_the_words_given_are_not_changed() -> None:
    strategy, word = set_up(nn.Linear(2, 1)), torch.tensor([2.0])
    strategy.backward(None, word)
    strategy.backward(None, word)
    assert word.tolist() == [2.0]


def test_a_whole_tensor_has_no_gradient_and_is_on_the_host() -> None:
    model = nn.Linear(2, 1)
    whole = set_up(model).whole(model.weight)
    assert torch.equal(whole, model.weight) and not whole.requires_grad


def test_contexts_and_buffers_are_left_alone() -> None:
    model = nn.BatchNorm1d(2)
    strategy = set_up(model)
    with strategy.synchronised(False):
        strategy.equalise_buffers()
    assert model.running_mean is not None and model.running_mean.tolist() == [0.0, 0.0]
