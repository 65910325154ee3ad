"""Tiny real models and data for tests."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import TensorDataset

from loopwright import Callback, Logger, LoopCallback, Precision, Trainer, TrainingLoop
from loopwright.checkpoint import plain_names, unsaved_buffers
from loopwright.device import Cpu, Single
from loopwright.engine.hook_table import bind_hooks
from loopwright.engine.metric_log import MetricLog
from loopwright.engine.parts import Parts
from loopwright.engine.stopping import Stopping
from loopwright.run_state import RunState
from loopwright.seeding import RandomStreams

sgd = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
adamw = functools.partial(torch.optim.AdamW, lr=0.01)


class Regression(nn.Module):
    """Linear layers with a squared loss, in ``dtype``; no batch statistics, and no dropout by default."""

    def __init__(self, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)).to(dtype)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        features, target = batch
        error = self.layers(features) - target
        return {"loss": error.square().mean(), "error": error.detach().abs().mean()}


class NoisyRegression(Regression):
    """Also draws from torch's stream in evaluation mode."""

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        features, target = batch
        if not self.training:
            features = features + torch.randn(features.shape, dtype=features.dtype)
        return super().forward((features, target))


def rows(num_rows: int = 50, dtype: torch.dtype = torch.float32) -> TensorDataset:
    """Return a data set with 4 features and 1 target per row; the values are always the same."""
    generator = torch.Generator().manual_seed(7)
    features = torch.randn(num_rows, 4, generator=generator, dtype=dtype)
    return TensorDataset(features, torch.randn(num_rows, 1, generator=generator, dtype=dtype))


def batches(num_batches: int = 8, batch_size: int = 4) -> list[tuple[Tensor, Tensor]]:
    """Return batches of `rows` as a list."""
    features, target = rows(num_batches * batch_size).tensors
    return list(zip(features.split(batch_size), target.split(batch_size), strict=True))


def trainer(loop: LoopCallback | None = None, **settings: Any) -> Trainer:
    """Build a trainer of `Regression` on the CPU; ``settings`` replace its arguments."""
    arguments: dict[str, Any] = {
        "model": Regression,
        "optimizer": sgd,
        "loop": loop or TrainingLoop(num_steps=5),
        "device": "cpu",
    }
    return Trainer(**(arguments | settings))


def parts(*callbacks: Callback, **settings: Any) -> Parts:
    """The objects of a run of `Regression` on the CPU, as the engine takes them; there is no trainer.

    Args:
        callbacks: callbacks whose hooks are bound; each is named after its class.
        settings: fields of `Parts` to replace.
    """
    model = settings.get("model") or Regression()
    named = [(type(callback).__name__, callback) for callback in callbacks]
    state, strategy = RunState(), Single()
    strategy.set_up(model, Cpu(), Precision())
    fields: dict[str, Any] = {
        "trainer": None,
        "model": model,
        "optimizer": sgd(model.parameters()),
        "device": Cpu(),
        "precision": Precision(),
        "streams": RandomStreams(0),
        "state": state,
        "strategy": strategy,
        "stopping": Stopping(state),
        "log": MetricLog(),
        "log_every_n_steps": 1,
        "callbacks": named,
        "hooks": bind_hooks(named),
    }
    return Parts(**(fields | settings))


def weights(of: Trainer | nn.Module) -> dict[str, Tensor]:
    """Return a copy of every parameter and buffer."""
    model = of.model if isinstance(of, Trainer) else of
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def is_bitwise_equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Return whether names and bits are the same."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def bits(tensor: Tensor) -> tuple[Any, ...]:
    """Return all properties of a tensor that must be restored: dtype, shape, strides, bits."""
    raw = tensor.detach().contiguous().reshape(-1)
    return tensor.dtype, tensor.shape, tensor.stride(), raw.view(torch.uint8).tolist() if raw.numel() else []


def snapshot(of: Any) -> dict[str, Any]:
    """Return the bits of all weights, buffers, optimizer and scheduler states."""

    def walk(tree: Any) -> Any:
        if isinstance(tree, Mapping):
            return {key: walk(value) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return [walk(value) for value in tree]
        return bits(tree) if isinstance(tree, Tensor) else tree

    model = of.model
    return {
        "model": walk(plain_names(model)),
        "buffers": walk(unsaved_buffers(model)),
        "optimizer": walk(of.optimizer.state_dict()),
        "schedulers": [walk(scheduler.state_dict()) for scheduler in of.schedulers],
    }


def largest_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the largest relative difference of a tensor, by norms."""
    return max(float((a[name] - b[name]).norm() / b[name].norm().clamp_min(1e-300)) for name in b)


class Recorder(Callback):
    """Runs ``act(trainer, batch, batch_idx)`` after every training micro-batch."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        self.act(trainer, batch, batch_idx)


class Logged(Logger):
    """Keeps all metrics, timings and texts of a run, as ``{name: {step: value}}``."""

    def __init__(self) -> None:
        self.metrics: dict[str, dict[int, float]] = {}
        self.timing: dict[str, dict[int, float]] = {}
        self.texts: dict[str, dict[int, str]] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.metrics.setdefault(name, {})[step] = value

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        for name, value in timing.items():
            self.timing.setdefault(name, {})[step] = value

    def log_text(self, texts: Mapping[str, str], step: int) -> None:
        for name, value in texts.items():
            self.texts.setdefault(name, {})[step] = value


class ReadBacks(TorchDispatchMode):
    """Counts how often the host reads a tensor value."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))
