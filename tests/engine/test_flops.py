"""Tests of the count of floating-point operations."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import tiny
from loopwright import TrainingLoop
from loopwright.engine.flops import count_flops
from loopwright.models import GPT

BATCH = tiny.batches(1)[0]


class Reading(tiny.Regression):
    """Reads a value of its batch, which fake tensors do not have."""

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        assert float(batch[0].sum()) < 1e6
        return super().forward(batch)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3, 16, 8))

    def forward(self, batch: Any) -> Tensor:
        return nn.functional.scaled_dot_product_attention(self.weight, self.weight, self.weight).sum()


@pytest.mark.parametrize("model", [tiny.Regression, Reading])
def test_products_of_the_forward_and_the_backward_are_counted(model: type[nn.Module]) -> None:
    forward, input_gradients = 2 * 4 * (4 * 8 + 8 * 1), 2 * 4 * (8 * 1)  # the batch needs no gradient
    assert count_flops(tiny.parts(model=model()), BATCH) == 2 * forward + input_gradients


def test_a_frozen_layer_needs_no_gradient() -> None:
    model = tiny.Regression()
    model.layers[0].requires_grad_(False)
    assert count_flops(tiny.parts(model=model), BATCH) == 2 * 4 * (4 * 8 + 8) + 2 * 4 * 8


def test_attention_on_the_cpu_is_counted() -> None:
    """The forward has 2 products, and the backward has 5: 4, and the scores are computed again."""
    product = 2 * 2 * 3 * 16 * 16 * 8
    assert count_flops(tiny.parts(model=Attention()), torch.zeros(2)) == 7 * product


def test_the_count_of_a_gpt_is_close_to_6_per_parameter_and_token() -> None:
    model = GPT(width=32, num_layers=2, num_heads=2, context_length=16)
    num_weights = sum(each.numel() for each in model.parameters() if each.ndim == 2) - 16 * 32  # positions are added
    found = count_flops(tiny.parts(model=model), {"tokens": torch.zeros(3, 17, dtype=torch.int64)})
    attention = 7 * 2 * 3 * 16 * 16 * 32 * 2
    assert found == 6 * num_weights * 3 * 16 + attention


@pytest.mark.parametrize("precision", ["bf16", "bf16_pure", "fp16"])
def test_lower_precisions_have_the_same_count_on_fake_tensors(precision: str) -> None:
    counts: list[int] = []
    are_fake: list[bool] = []

    class Noting(tiny.Regression):
        def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
            are_fake.append(isinstance(batch[0], FakeTensor))
            return super().forward(batch)

    recorder = tiny.Recorder(lambda trainer, batch, _: counts.append(trainer.measures.count_flops(batch)))
    loop = TrainingLoop(num_steps=1)
    tiny.trainer(loop, model=Noting, precision=precision, callbacks=[recorder]).fit(tiny.batches())
    assert counts == [704] and are_fake == [False, True]


@pytest.mark.parametrize("model", [tiny.Regression, Reading])
def test_gradients_and_streams_are_kept(model: type[nn.Module]) -> None:
    parts = tiny.parts(model=model(dropout=0.5))
    parts.model(BATCH)["loss"].backward()
    before = {name: each.grad.clone() for name, each in parts.model.named_parameters()}
    states = random.getstate(), torch.get_rng_state().tolist()
    count_flops(parts, BATCH)
    assert (random.getstate(), torch.get_rng_state().tolist()) == states
    assert tiny.is_bitwise_equal({name: each.grad for name, each in parts.model.named_parameters()}, before)


def test_a_hook_on_a_parameter_does_not_run() -> None:
    """Some optimizers update a parameter in such a hook."""
    model, called = Reading(), []
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda parameter: called.append(parameter))
    count_flops(tiny.parts(model=model), BATCH)
    assert called == []


@pytest.mark.slow
def test_a_compiled_model_is_counted_without_a_warning() -> None:
    counts: list[int] = []
    recorder = tiny.Recorder(lambda trainer, batch, _: counts.append(trainer.measures.count_flops(batch)))
    for model in (tiny.Regression, lambda: torch.compile(tiny.Regression(), backend="eager")):
        tiny.trainer(TrainingLoop(num_steps=1), model=model, callbacks=[recorder]).fit(tiny.batches())
    assert counts == [704, 704]
