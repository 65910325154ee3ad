"""Dropout is switched off in every operation that contains dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from loopwright.experiment.verify.dropout import WithoutDropout

ones = torch.ones(2, 3, 4)
query = torch.ones(1, 2, 3, 4)
attend = functional.scaled_dot_product_attention


def module(made: nn.Module, *inputs: Tensor) -> Any:
    for parameter in made.parameters():
        nn.init.constant_(parameter, 0.5)
    answer = made(*inputs)
    return answer[0] if isinstance(answer, tuple) else answer


def packed(made: nn.Module) -> Tensor:
    for parameter in made.parameters():
        nn.init.constant_(parameter, 0.5)
    out: Tensor = made(nn.utils.rnn.pack_padded_sequence(ones, [3, 3], batch_first=True))[0].data
    return out


# Operations with dropout if the argument is True, and without if it is False.
DROPPING: dict[str, Callable[[bool], Tensor]] = {
    "function": lambda is_on: functional.dropout(ones, 0.3, is_on),
    "by default": lambda is_on: functional.dropout(ones, training=is_on),
    "by name": lambda is_on: functional.dropout(ones, p=0.5, training=is_on),
    "in place": lambda is_on: functional.dropout(ones.clone(), 0.5, is_on, True),
    "module": lambda is_on: nn.Dropout(0.4).train(is_on)(ones),
    "whole channels": lambda is_on: nn.Dropout1d(0.5).train(is_on)(ones),
    "alpha": lambda is_on: functional.alpha_dropout(ones, 0.2, is_on),
    "alpha of channels": lambda is_on: functional.feature_alpha_dropout(ones, training=is_on),
    "torch": lambda is_on: torch.dropout(ones, 0.5, is_on),
    "torch by name": lambda is_on: torch.dropout(ones, p=0.5, train=is_on),
    "attention": lambda is_on: attend(query, query, query.cumsum(-2), None, 0.5 * is_on),
    "causal attention": lambda is_on: attend(query, query, query.cumsum(-2), dropout_p=0.5 * is_on, is_causal=True),
    "heads": lambda is_on: module(nn.MultiheadAttention(4, 2, dropout=0.5).train(is_on), ones, ones, ones),
    "lstm": lambda is_on: module(nn.LSTM(4, 5, 2, dropout=0.5).train(is_on), ones),
    "gru": lambda is_on: module(nn.GRU(4, 5, 2, dropout=0.5, bidirectional=True).train(is_on), ones),
    "packed": lambda is_on: packed(nn.LSTM(4, 5, 2, dropout=0.5, batch_first=True).train(is_on)),
}


@pytest.mark.parametrize("how", DROPPING)
def test_no_value_is_dropped_and_the_dropout_is_recorded(how: str) -> None:
    torch.manual_seed(0)
    expected = DROPPING[how](False)
    assert any(not torch.equal(DROPPING[how](True), expected) for _ in range(8))
    with WithoutDropout() as mode:
        assert torch.equal(DROPPING[how](True), expected)
    assert mode.has_dropped
    with WithoutDropout() as mode:
        assert torch.equal(DROPPING[how](False), expected)
    assert not mode.has_dropped
