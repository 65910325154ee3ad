"""A resumed run restores state of every kind bitwise: tensors, optimizers, schedulers."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from loopwright import TrainingLoop
from tiny import Regression, batches, is_bitwise_equal, rows, snapshot, trainer, weights

TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.complex128]


class Museum(nn.Module):
    """A model with parameters and buffers of every kind; the loss depends on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.typed = nn.ParameterList(nn.Parameter(torch.randn(2, 3, dtype=dtype)) for dtype in TYPES)
        self.scalar = nn.Parameter(torch.randn(()))
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.turned = nn.Parameter(torch.randn(3, 4, 2).permute(2, 0, 1))
        self.image = nn.Parameter(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
        self.embedding = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embedding.weight  # tied
        self.whole = nn.Parameter(torch.randn(6))
        self.front = nn.Parameter(self.whole.data[:2])  # a view of another parameter
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("is_seen", torch.zeros(3, dtype=torch.bool))
        self.register_buffer("byte", torch.zeros(2, dtype=torch.uint8))
        self.register_buffer("quarter", torch.zeros(2, dtype=torch.float8_e4m3fn))
        self.register_buffer("passing", torch.zeros(2), persistent=False)
        self.register_buffer("passing_turned", torch.zeros(2, 3).T, persistent=False)
        self.register_buffer("cache", torch.zeros(0), persistent=False)  # grows
        self.register_buffer("late", None, persistent=False)
        self.register_buffer("never", None, persistent=False)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        features, _ = batch
        if self.training:
            self.count += 1
            self.is_seen[self.count % 3] ^= True
            self.byte += 3
            self.quarter.copy_(self.quarter.float() + 0.25)
            self.passing += torch.rand(2)
            self.passing_turned.mul_(0.5).add_(features.mean())
            self.cache = torch.cat([self.cache, features.mean().reshape(1)])[-3:]
            self.late = self.passing * 2
        state = self.passing.sum() + self.passing_turned.sum() + self.cache.sum() + self.late.sum() + self.count
        loss = (features.mean() + 0.01 * state) ** 2
        for parameter in self.parameters():
            loss = loss + (parameter.abs().float() - features.mean()).square().sum()
        return loss


def cut(tmp_path: Path, num_before: int, num_after: int, data: Any, **settings: Any) -> tuple[Any, Any]:
    """Train ``num_before + num_after`` steps, once without and once with an interruption after ``num_before``."""
    before = trainer(TrainingLoop(max_steps=num_before), **settings)
    before.fit(data)
    before.save_checkpoint(tmp_path / f"cut_{num_before}")
    loop = TrainingLoop(max_steps=num_before + num_after)
    straight, resumed = trainer(loop, **settings), trainer(loop, seed=5, **settings)
    straight.fit(data)
    resumed.fit(data, ckpt_path=tmp_path / f"cut_{num_before}")
    return straight, resumed


@pytest.mark.parametrize("foreach", [True, False])
def test_a_model_with_every_kind_of_tensor_resumes_bitwise(
    tmp_path: Path, foreach: bool, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = partial(torch.optim.AdamW, lr=0.01, foreach=foreach)
    for num_before in (1, 2, 3, 4):
        straight, resumed = cut(tmp_path, num_before, 5 - num_before, batches(5), model=Museum, optimizer=optimizer)
        assert snapshot(resumed) == snapshot(straight)
        model = resumed.model
        assert model.head.weight is model.embedding.weight
        assert model.front.data_ptr() == model.whole.data_ptr() and torch.equal(model.front, model.whole[:2])
        said = [message for message in caplog.messages if "replaces buffers" in message]
        size = min(num_before, 3)
        assert said[-1].endswith(
            f"of another shape or dtype: cache: the model has 0 float32, the checkpoint {size} float32."
        )


OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    **{
        name: partial(getattr(torch.optim, name), lr=0.02)
        for name in (
            "Adafactor", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop",
            "Rprop", "SGD",
        )
    },
    "Adam, amsgrad": partial(torch.optim.Adam, lr=0.02, amsgrad=True),
    "Adam, fused": partial(torch.optim.Adam, lr=0.02, fused=True),
    "Adagrad, fused": partial(torch.optim.Adagrad, lr=0.02, fused=True),
    "Adam, a tensor as rate": lambda parameters: torch.optim.Adam(parameters, lr=torch.tensor(0.02)),
    "NAdam, decoupled": partial(torch.optim.NAdam, lr=0.02, weight_decay=0.1, decoupled_weight_decay=True),
    "SGD, momentum": partial(torch.optim.SGD, lr=0.02, momentum=0.9),
}  # fmt: skip


class Turned(Regression):
    """A regression with one weight that is transposed in memory."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype, dropout=0.2)
        self.layers[0].weight = nn.Parameter(torch.randn(4, 8, dtype=dtype).T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_resumes_bitwise(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    features, target = rows(24, dtype).tensors
    data = list(zip(features.split(4), target.split(4), strict=True))
    straight, resumed = cut(tmp_path, 3, 4, data, model=lambda: Turned(dtype), optimizer=OPTIMIZERS[name])
    assert snapshot(resumed) == snapshot(straight)


SCHEDULERS: dict[str, Any] = {
    "LambdaLR": partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 0.9**step),
    "MultiStepLR": partial(lr_scheduler.MultiStepLR, milestones=[2, 4, 4, 6]),  # its milestones are a Counter
    "CyclicLR": partial(lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=3),
    "CosineAnnealingWarmRestarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2, T_mult=2),
    "OneCycleLR": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9),
    "SequentialLR": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer), lr_scheduler.MultiStepLR(optimizer, [2, 2])], [3]
    ),
    "ChainedScheduler": lambda optimizer: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer, total_iters=3), lr_scheduler.ExponentialLR(optimizer, gamma=0.9)]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_resume_bitwise(name: str, tmp_path: Path) -> None:
    for num_before in (2, 5):
        straight, resumed = cut(tmp_path, num_before, 9 - num_before, batches(5), schedulers=[SCHEDULERS[name]])
        assert snapshot(resumed) == snapshot(straight)


class Gaussian(Regression):
    """Draws one number when it is made, and one in each step: Python keeps a spare one after every other call."""

    def __init__(self) -> None:
        super().__init__()
        random.gauss(0, 1)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        outputs = super().forward(batch)
        return {"loss": outputs["loss"] * (1 + random.gauss(0, 1) ** 2)}


@pytest.mark.parametrize("num_before", [1, 2])
def test_a_spare_number_of_pythons_generator_may_be_there_or_not(num_before: int, tmp_path: Path) -> None:
    straight, resumed = cut(tmp_path, num_before, 3, batches(6), model=Gaussian)
    assert snapshot(resumed) == snapshot(straight)


class Counting(Regression):
    """Adds to its loss a number from a buffer that is not persistent."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(()), persistent=False)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        if self.training:
            self.offset += 1
        outputs = super().forward(batch)
        return {"loss": outputs["loss"] + self.offset}


def test_a_checkpoint_is_validated_with_its_buffers_and_the_buffers_in_memory_are_restored(tmp_path: Path) -> None:
    ours = trainer(TrainingLoop(max_steps=3), model=Counting)
    ours.fit(batches(6))
    ours.save_checkpoint(tmp_path / "third")
    at_third = ours.validate([batches(2)])
    fresh = trainer(model=Counting)
    assert fresh.validate([batches(2)], ckpt_path=tmp_path / "third") == at_third
    assert fresh.model.offset == 0
    assert at_third["val/loss"] > 3


def test_init_from_does_not_load_buffers_that_are_not_persistent(tmp_path: Path) -> None:
    ours = trainer(TrainingLoop(max_steps=3), model=Counting)
    ours.fit(batches(6))
    ours.save_checkpoint(tmp_path / "third")
    fresh = trainer(TrainingLoop(num_steps=1), model=Counting, optimizer=partial(torch.optim.SGD, lr=0.0))
    fresh.fit(batches(6), init_from=tmp_path / "third")
    assert fresh.model.offset == 1
    assert is_bitwise_equal(weights(fresh), weights(ours))
