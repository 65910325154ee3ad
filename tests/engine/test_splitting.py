"""`device.on_oom=split`: the gradients of a micro-batch that is computed in parts, and what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.data import Loader
from loopwright.device import Device
from loopwright.errors import SettingError
from ranked import on_ranks
from tiny import adamw, is_bitwise_equal, rows, trainer, weights

SPLIT = Device(kind="cpu", on_oom="split")


class Backward(torch.autograd.Function):
    """Fails in the backward if there are more rows than ``most``."""

    @staticmethod
    def forward(context: Any, values: Tensor, most: int) -> Tensor:
        context.is_too_large = len(values) > most
        return values.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        if context.is_too_large:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return gradients[0], None


class Hungry(nn.Module):
    """Runs out of memory with more than ``most`` rows, in the forward or in the backward."""

    def __init__(self, most: int, where: str, is_ragged: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        self.most, self.where, self.is_ragged = most, where, is_ragged

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        features, target = batch
        if self.where == "forward" and len(features) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        errors = (self.layers(features) - target).square().reshape(-1)
        if self.where == "backward":
            errors = Backward.apply(errors, self.most)
        counted = features[:, 0] > 0 if self.is_ragged else torch.ones(len(features), dtype=torch.bool)
        num_items = int(counted.sum())
        loss = errors[counted].sum() / max(num_items, 1)
        return {"loss": loss, "num_items": num_items, "errors": errors.detach(), "half": loss.detach() / 2}


class Hooks(Callback):
    def __init__(self) -> None:
        self.called: list[str] = []
        self.errors: list[Tensor] = []

    def on_before_forward(self, trainer: Any, model: Any, batch: Any, args: Any, kwargs: Any) -> None:
        self.called.append("before forward")

    def on_after_forward(self, trainer: Any, model: Any, outputs: Any, batch: Any) -> None:
        self.called.append("after forward")
        self.errors.append(outputs["errors"])

    def on_before_backward(self, trainer: Any, model: Any, outputs: Any) -> None:
        self.called.append("before backward")

    def on_after_backward(self, trainer: Any, model: Any, outputs: Any) -> None:
        self.called.append("after backward")


def train(
    rank: int, most: int, where: str, accum: int, device: Device, is_ragged: bool = True
) -> tuple[dict[str, Tensor], dict[str, float], list[str], list[Tensor]]:
    hooks = Hooks()
    ours = trainer(
        TrainingLoop(num_steps=4, grad_accum_steps=accum),
        model=lambda: Hungry(most, where, is_ragged),
        optimizer=adamw,
        device=device,
        callbacks=[hooks],
        log_every_n_steps=2,
    )
    metrics = ours.fit(Loader(rows(44, torch.float64), batch_size=8, shuffle=True)).metrics
    return weights(ours), dict(metrics), hooks.called, hooks.errors


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("most", [4, 2, 1])
@pytest.mark.parametrize("accum", [1, 2, 3])
def test_parts_give_the_gradients_metrics_and_hooks_of_the_whole(where: str, most: int, accum: int) -> None:
    whole, metrics, called, errors = train(0, 8, where, accum, Device(kind="cpu"))
    own, own_metrics, own_called, own_errors = train(0, most, where, accum, SPLIT)
    for name, tensor in whole.items():
        assert float((own[name] - tensor).norm() / tensor.norm()) < 1e-12
    assert own_metrics == pytest.approx(metrics, rel=1e-12)
    assert own_called == called
    assert all(torch.allclose(one, two, rtol=1e-10) for one, two in zip(own_errors, errors, strict=True))


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(("most", "accum"), [(2, 1), (1, 2), (1, 3)])
def test_parts_of_two_processes_give_the_weights_of_one(where: str, most: int, accum: int) -> None:
    whole, *_ = train(0, 8, where, accum, Device(kind="cpu"))
    for own, *_ in on_ranks(2, train, most, where, accum, SPLIT):
        for name, tensor in whole.items():
            assert float((own[name] - tensor).norm() / tensor.norm()) < 1e-12


def test_a_warning_names_the_number_of_parts(caplog: pytest.LogCaptureFixture) -> None:
    train(0, 2, "forward", 1, SPLIT)
    assert [record.getMessage() for record in caplog.records] == [
        f"Out-of-memory error in step 1: each micro-batch is now computed in {each} parts (device.on_oom=split)."
        for each in (2, 4)
    ]


def test_one_row_that_is_too_large_ends_the_fit_with_the_error_of_torch() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory") as caught:
        train(0, 0, "forward", 1, SPLIT)
    assert any("device.on_oom=split cannot split" in note for note in caught.value.__notes__)


def test_other_errors_and_the_default_setting_are_not_rescued() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        train(0, 4, "forward", 1, Device(kind="cpu"))


def test_the_number_of_parts_is_resumed(tmp_path: Path) -> None:
    def run(steps: int, run_dir: Path, ckpt_path: str | None = None) -> Any:
        ours = trainer(
            TrainingLoop(max_steps=steps),
            model=lambda: Hungry(4, "forward", True),
            optimizer=adamw,
            device=SPLIT,
            checkpoint=Checkpointing(),
            run_dir=run_dir,
            loggers=[],
        )
        ours.fit(Loader(rows(44, torch.float64), batch_size=8, shuffle=True), ckpt_path=ckpt_path)
        return ours

    run(3, tmp_path / "cut")
    resumed = run(6, tmp_path / "cut", "last")
    assert is_bitwise_equal(weights(resumed), weights(run(6, tmp_path / "straight")))


def test_it_is_refused_with_fsdp() -> None:
    with pytest.raises(SettingError, match="on_oom='split': expected stop with strategy=fsdp; use strategy=ddp"):
        Device(on_oom="split", strategy="fsdp")
