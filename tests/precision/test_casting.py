"""The context of a forward: none if nothing is cast, otherwise a new autocast context of torch for each forward."""

from __future__ import annotations

import torch

from loopwright.precision import Precision, forward_context


def test_float32_needs_no_context() -> None:
    assert forward_context("cpu", Precision().autocast_dtype) is None


def test_a_forward_in_bfloat16_computes_in_bfloat16_and_leaves_the_context() -> None:
    make = forward_context("cpu", torch.bfloat16)
    assert make is not None
    weight = torch.ones(2, 2)
    for _ in range(2):
        with make():
            assert (weight @ weight).dtype == torch.bfloat16
    assert (weight @ weight).dtype == torch.float32
