"""Several processes that each store a part of the model, with ``strategy=fsdp``: the same weights as one process.

The processes are forked, and gloo connects them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from loopwright import Callback, Precision, TrainingLoop
from loopwright.callbacks import ExponentialMovingAverage, GradientNorms, StopOnNonFinite, Utilisation
from loopwright.data import Loader
from loopwright.device import Device
from ranked import Died, on_ranks
from tiny import Logged, adamw, largest_difference, rows, trainer

FSDP = Device(kind="cpu", strategy="fsdp")


class Block(nn.Module):
    """A residual layer. With 2 or more processes, some of them have no row of ``scale``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.tanh(self.layer(x))


class Blocks(nn.Module):
    """Two blocks and a masked squared loss, in float64. A batch may have no items."""

    def __init__(self, width: int = 5, is_masked: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.enter = nn.Linear(4, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.leave = nn.Linear(width, 1)
        self.register_buffer("offset", torch.full((3,), 0.5))
        self.is_masked = is_masked
        self.double()

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        features, target = batch
        x = self.enter(features)
        for block in self.blocks:
            x = self.dropout(block(x))
        errors = (self.leave(x) - target + self.offset[0]).square().reshape(-1)
        if self.is_masked:
            errors = errors[features[:, 0] > 0]
        return {"loss": errors.sum() / max(errors.numel(), 1), "num_items": errors.numel()}


def gathered(ours: Any) -> dict[str, Tensor]:
    """Return the whole weights in every process."""
    found = {name: each.detach() for name, each in ours.model.state_dict().items()}
    return {
        name: (each.full_tensor() if hasattr(each, "full_tensor") else each).clone() for name, each in found.items()
    }


def fitted(rank: int, device: Any, batch_size: int, accum: int, **settings: Any) -> dict[str, Any]:
    logged = Logged()
    arguments: dict[str, Any] = {
        "model": Blocks,
        "optimizer": adamw,
        "device": device,
        "precision": Precision(max_gradient_norm=0.5),
        "loggers": [logged],
        "log_every_n_steps": 4,
    } | settings
    loop = TrainingLoop(num_steps=12, grad_accum_steps=accum, eval_frequency=5)
    ours = trainer(loop, **arguments)
    data = Loader(rows(23, torch.float64), batch_size=batch_size, shuffle=True)
    result = ours.fit(data, Loader(rows(9, torch.float64), batch_size=4))
    validated = ours.validate(Loader(rows(7, torch.float64), batch_size=3))
    metrics = dict(result.metrics) | validated
    return {"rank": rank, "weights": gathered(ours), "metrics": metrics, "logged": logged.metrics}


def is_same(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float = 1e-10) -> bool:
    """Compare two results of `fitted`. Only process 0 has loggers."""
    for name, values in ours["logged"].items():
        assert values == pytest.approx(theirs["logged"][name], rel=tolerance)
    assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=tolerance)
    assert ours["weights"].keys() == theirs["weights"].keys()
    return largest_difference(ours["weights"], theirs["weights"]) < tolerance


@pytest.mark.parametrize(
    "world_size", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("batch_size", "accum"), [(8, 1), (4, 3), (2, 2), (1, 4), (5, 2)])
def test_weights_norms_and_means_are_those_of_one_process(world_size: int, batch_size: int, accum: int) -> None:
    alone = fitted(0, "cpu", batch_size, accum)
    for each in on_ranks(world_size, fitted, FSDP, batch_size, accum):
        assert is_same(each, alone)
        assert (each["logged"].keys() == alone["logged"].keys()) == (each["rank"] == 0)


def with_callbacks(rank: int, device: Any) -> dict[str, Any]:
    callbacks = [ExponentialMovingAverage(0.8), GradientNorms("parameter"), StopOnNonFinite(every_step=True, skip=1)]
    return fitted(rank, device, 4, 3, callbacks=callbacks, precision=Precision())


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
def test_shipped_callbacks_see_whole_norms_and_averages(world_size: int) -> None:
    alone = with_callbacks(0, "cpu")
    assert any(name.startswith("train/gradient_norm/blocks.1.") for name in alone["logged"])
    for each in on_ranks(world_size, with_callbacks, FSDP):
        assert is_same(each, alone)


class Poisons(Callback):
    """Makes one gradient infinite in step 6, in the process that stores its first row."""

    def on_after_backward(self, trainer: Any, model: Any, outputs: Any) -> None:
        if trainer.global_step == 5 and trainer.should_run_optimizer_step:
            gradient = model.leave.weight.grad
            rows_here = gradient.to_local() if hasattr(gradient, "to_local") else gradient
            rows_here[:1] = torch.inf


def poisoned(rank: int, device: Any) -> dict[str, Any]:
    callbacks = [Poisons(), StopOnNonFinite(every_step=True, skip=1)]
    return fitted(rank, device, 4, 3, callbacks=callbacks, model=partial(Blocks, is_masked=False))


@pytest.mark.slow
def test_an_infinite_gradient_of_one_process_is_skipped_by_all() -> None:
    alone = poisoned(0, "cpu")
    assert alone["metrics"]["train/skipped_updates"] == 1
    for each in on_ranks(3, poisoned, FSDP):
        assert is_same(each, alone)


def in_dtype(rank: int, device: Any, dtype: str) -> dict[str, Any]:
    callbacks = [Poisons()] if dtype == "fp16" else []
    return fitted(rank, device, 4, 3, precision=Precision(dtype=dtype), callbacks=callbacks)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp16", 1e-3), ("bf16", 1e-3)])
def test_lower_precision_skips_the_same_updates(dtype: str, tolerance: float) -> None:
    alone = in_dtype(0, "cpu", dtype)
    assert alone["metrics"].get("train/skipped_updates", 0) == (1 if dtype == "fp16" else 0)
    found = on_ranks(2, in_dtype, FSDP, dtype)
    assert all(is_same(each, alone, tolerance) for each in found)


class Plain(nn.Module):
    """Has no repeated blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1, dtype=torch.float64)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (self.layer(batch[0]) - batch[1]).square().mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "model"),
    [({"reshard": False}, Blocks), ({"blocks": ["Linear", "Block"]}, Blocks), ({}, Plain)],
)
def test_other_ways_to_shard_give_the_same_weights(settings: dict[str, Any], model: Any) -> None:
    arguments = (4, 3)
    alone = partial(fitted, model=model)(0, "cpu", *arguments)
    device = Device(kind="cpu", strategy="fsdp", **settings)
    assert all(is_same(each, alone) for each in on_ranks(2, partial(fitted, model=model), device, *arguments))


class Thaws(Callback):
    """Freezes the first block until step 4."""

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, batch_idx: int) -> None:
        model.blocks[0].requires_grad_(trainer.global_step >= 4)


@pytest.mark.slow
def test_parameters_may_be_frozen_and_trained_later() -> None:
    alone = fitted(0, "cpu", 4, 3, callbacks=[Thaws()])
    assert all(is_same(each, alone) for each in on_ranks(2, partial(fitted, callbacks=[Thaws()]), FSDP, 4, 3))


class Seeded(nn.Module):
    """Has other initial weights in each process."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(torch.distributed.get_rank())
        self.layer = nn.Linear(4, 3)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.layer(batch[0]).square().mean()


def described(rank: int) -> tuple[dict[str, Tensor], list[str], str, str, float]:
    ours = trainer(TrainingLoop(num_steps=1), model=Seeded, device=FSDP)
    whole = gathered(ours)["layer.weight"]
    shapes = [f"{name} {tuple(each.shape)}" for name, each in ours.parameters.items()]
    return {"weight": whole}, shapes, ours.model_lines, repr(ours), float(whole.sum())


def test_every_process_gets_the_weights_of_process_0_and_sees_whole_shapes() -> None:
    first, second = on_ranks(2, described)
    assert torch.equal(first[0]["weight"], second[0]["weight"])
    assert first[1] == ["layer.weight (3, 4)", "layer.bias (3,)"]
    assert first[2].startswith("Model: Seeded, 15 ") and "model=Seeded" in first[3]


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 1), nn.Parameter(torch.tensor(1.0))

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (self.scale * self.layer(batch[0]) - batch[1]).square().mean()


class Nan(Blocks):
    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        return super().forward(batch) | {"num_items": 0, "loss": super().forward(batch)["loss"] * torch.nan}


def build(rank: int, model: Any, **device: Any) -> None:
    settings = Device(kind="cpu", strategy="fsdp", **device)
    data = Loader(rows(20, torch.float64), batch_size=4)
    trainer(TrainingLoop(num_steps=2), model=model, device=settings).fit(data)


@pytest.mark.parametrize(
    ("model", "device", "message"),
    [
        (Scalar, {}, r"device.strategy=fsdp: the parameter scale is a scalar, and has no rows; use device"),
        (Blocks, {"blocks": ["Blok"]}, r"device.blocks=\['Blok'\]: .* Did you mean Block\?"),
        (Nan, {}, r"The loss of a micro-batch without items is nan; expected a finite number with device"),
    ],
)
def test_what_cannot_be_sharded_is_refused_in_one_line(model: Any, device: dict[str, Any], message: str) -> None:
    with pytest.raises(Died, match=message):
        on_ranks(2, partial(build, **device), model)


def with_utilisation(rank: int) -> None:
    fitted(rank, FSDP, 4, 1, callbacks=[Utilisation()])


def test_operations_of_a_sharded_model_are_not_counted() -> None:
    with pytest.raises(Died, match="callbacks: Utilisation cannot count the operations of a model"):
        on_ranks(2, with_utilisation)


class OneSided(IterableDataset[Any]):
    """Has rows in process 0 alone."""

    def __iter__(self) -> Iterator[Any]:
        return iter([] if int(os.environ["RANK"]) else list(rows(8, torch.float64)))


def without_a_batch(rank: int) -> None:
    ours = trainer(TrainingLoop(num_steps=2), model=Blocks, device=FSDP)
    ours.fit(DataLoader(OneSided(), batch_size=2))


def test_a_process_without_any_batch_is_refused() -> None:
    with pytest.raises(Died, match="Process 1 has read no batch, so it cannot make the forwards of the others"):
        on_ranks(2, without_a_batch)


def predicted(rank: int, device: Any) -> Any:
    class Predicts(Blocks):
        def predict(self, batch: Any) -> Tensor:
            x = self.enter(batch[0])
            for block in self.blocks:
                x = block(x)
            return self.leave(x)

    ours = trainer(TrainingLoop(num_steps=3), model=Predicts, device=device)
    ours.fit(Loader(rows(20, torch.float64), batch_size=4))
    return ours.predict(Loader(rows(7, torch.float64), batch_size=3))["prediction"]


def test_a_sharded_model_predicts() -> None:
    alone = predicted(0, "cpu")
    assert all(each == pytest.approx(alone, rel=1e-10) for each in on_ranks(2, predicted, FSDP))
