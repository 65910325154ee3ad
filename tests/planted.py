"""Typical mistakes of users that `verify` must find, in models, data and callbacks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from loopwright import Callback
from loopwright.data import Loader, Splits, TensorData

_shared = np.random.default_rng(0)


def _table(num_rows: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "features": torch.randn(num_rows, 4, generator=generator),
        "target": torch.randn(num_rows, 1, generator=generator),
    }


class Model(nn.Module):
    """Learns ``target`` from ``features``; ``mistake`` names what it does wrong."""

    def __init__(self, mistake: str = "none") -> None:
        super().__init__()
        norm = nn.BatchNorm1d(8) if mistake == "batch_norm" else nn.Identity()
        self.layers = nn.Sequential(nn.Linear(4, 8), norm, nn.Tanh(), nn.Linear(8, 1))
        self.mistake = mistake
        self.scale = torch.ones(())  # a plain attribute, not a buffer
        self.register_buffer("num_seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()))
        self.generator = torch.Generator().manual_seed(1) if mistake == "generator" else None

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        features = batch["features"]
        if self.mistake == "running" and self.training:
            self.mean.copy_(0.9 * self.mean + 0.1 * features.mean())
            features = features - self.mean
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mistake == "autocast"):
            output = self.layers(features)
        output = output.float()
        if self.mistake == "attribute":
            self.scale = self.scale * 0.9
            output = output * self.scale
        if self.mistake in ("evaluation", "evaluation_used") and not self.training:
            self.num_seen += 1
        if self.mistake == "evaluation_used":
            output = output + 0.1 * self.num_seen
        if self.mistake == "evaluation_operation" and not self.training:
            output = torch.zeros_like(output).put_(torch.arange(output.numel()), output)
        if self.mistake == "batch_statistics":
            output = functional.batch_norm(output, None, None, training=self.training)
        if self.mistake == "numpy_noise":
            output = output + float(np.random.randn())
        if self.mistake == "noise":
            output = output + torch.randn(())
        if self.mistake == "not_a_number":
            output = output * torch.nan
        if self.mistake == "generator":
            output = output + torch.randn(output.shape, generator=self.generator)
        if self.mistake == "operation":
            output = torch.zeros_like(output).put_(torch.arange(output.numel()), output)
        if self.mistake == "clock":
            output = output * (1 + time.perf_counter_ns() % 1000 / 1e6)
        errors = (output - batch["target"]).square()
        if self.mistake == "items":
            return {"loss": errors.mean(), "num_items": len(errors) ** 2}
        if self.mistake == "counted":
            return {"loss": errors.mean(), "num_items": len(errors)}
        if self.mistake == "tokens" and "offsets" in batch:  # a mean over tokens, without their number
            lengths = torch.diff(batch["offsets"], append=torch.tensor([len(batch["tokens"])]))
            return {"loss": (errors.reshape(len(errors), -1).mean(1) * lengths).sum() / lengths.sum()}
        return {"loss": errors.sum() if self.mistake == "sum" else errors.mean()}


class Noisy:
    """Rows with noise from a generator of the data set or of this module."""

    def __init__(self, num_rows: int, mistake: str) -> None:
        self._table = _table(num_rows)
        self._generator = np.random.default_rng(5) if mistake == "generator" else None

    def __len__(self) -> int:
        return len(self._table["target"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        drawn = float((self._generator if self._generator is not None else _shared).standard_normal())
        return {"features": self._table["features"][index] + 0.1 * drawn, "target": self._table["target"][index]}


class Other(IterableDataset[Any]):
    """An iterable data set; each worker yields all of its rows."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(TensorData(_table(40))[index] for index in range(40))


class Texts:
    """Rows of different lengths, each with a text."""

    is_random = False

    def __init__(self, num_rows: int) -> None:
        self._table = _table(num_rows)

    def __len__(self) -> int:
        return len(self._table["target"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = {name: tensor[index] for name, tensor in self._table.items()}
        return {**row, "text": f"row {index}", "tokens": torch.ones(1 + index % 5)}


def _pad(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Collate texts, tokens padded to the longest row, and a mask that does not belong to a sample."""
    batch: dict[str, Any] = {name: torch.stack([each[name] for each in samples]) for name in ("features", "target")}
    tokens = nn.utils.rnn.pad_sequence([each["tokens"] for each in samples], batch_first=True)
    num_rows = {"num_rows": len(samples), "num_tokens": tokens.sum()}
    return {**batch, **num_rows, "text": [each["text"] for each in samples], "tokens": tokens, "mask": torch.eye(3)}


def _join(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Collate the tokens of all samples into one tensor, with the start of each sample in a second tensor."""
    batch: dict[str, Any] = {name: torch.stack([each[name] for each in samples]) for name in ("features", "target")}
    lengths = torch.tensor([len(each["tokens"]) for each in samples])
    tokens = torch.cat([each["tokens"] for each in samples])
    return {"tokens": tokens, "offsets": lengths.cumsum(0) - lengths, **batch}


def _collate_with_noise(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    return {**batch, "features": batch["features"] + 0.1 * torch.randn(batch["features"].shape)}


class NoisyLoader(DataLoader[Any]):
    """A subclass of `DataLoader` that adds noise from torch's global stream to its batches."""


class Whole:
    """A dataloader whose batches do not depend on ``batch_size``."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        table = _table(40)
        return iter([{name: tensor[start : start + 7] for name, tensor in table.items()} for start in range(0, 35, 7)])

    def __len__(self) -> int:
        return 5


def data(mistake: str = "none", batch_size: int = 4, num_workers: int = 0, has_val: bool = True) -> Splits:
    """Return forty rows for training and ten for validation."""
    table = TensorData(_table(40))
    val = Loader(TensorData(_table(10)), batch_size=batch_size) if has_val else None
    if mistake == "loader":
        train: Any = NoisyLoader(table, batch_size, num_workers=num_workers, collate_fn=_collate_with_noise)
    elif mistake == "whole":
        train = Whole()
    elif mistake == "iterable":
        train = DataLoader(Other(), batch_size, num_workers=num_workers)
    elif mistake in ("texts", "drop_last"):
        train = Loader(
            Texts(42), batch_size, drop_last=mistake == "drop_last", num_workers=num_workers, collate_fn=_pad
        )
    elif mistake == "joined":
        train = Loader(Texts(40), batch_size, num_workers=num_workers, collate_fn=_join)
    else:
        rows: Any = table if mistake == "none" else Noisy(40, mistake)
        train = Loader(rows, batch_size=batch_size, shuffle=True, num_workers=num_workers)
    return Splits(train=train, val=val)


class Counting(Callback):
    """Changes the weights after six batches; the count of batches is not saved."""

    def __init__(self) -> None:
        self.num_batches = 0

    def on_train_batch_end(self, trainer: Any, model: nn.Module, *_: Any) -> None:
        self.num_batches += 1
        if self.num_batches == 6:
            with torch.no_grad():
                next(model.parameters()).mul_(1.5)


class Clock(Callback):
    """Has the current time in its state."""

    def state_dict(self) -> dict[str, Any]:
        return {"nanoseconds": time.perf_counter_ns()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class Files(Callback):
    """Writes a file into the run directory."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        (trainer.run_dir / "notes.txt").write_text(f"{trainer.global_step}")
