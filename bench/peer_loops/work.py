"""The workloads that all loops train: models, data and settings. They are equal in every process.

Loopwright is imported only in the functions that need it, because W4 measures the imports of each library.
"""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

BATCH_SIZE = 32
LOG_EVERY_STEPS = 50
CONTEXT_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One workload. Every loop reads the batches in the order of the dataloader.

    Attributes:
        make_model: function that returns the model with its first weights. ``model(batch)`` returns the loss.
        make_optimizer: function that takes the parameters and returns the optimizer.
        make_loader: function that returns the training dataloader.
        make_val_loader: function that returns the validation dataloader; None: nothing is logged, validated or saved.
        num_steps: number of optimizer steps.
        num_epochs: number of passes over the training dataloader.
        grad_accum_steps: number of micro-batches in a step.
        eval_every_steps: steps from one validation to the next. Each validated step is also saved.
    """

    make_model: Callable[[], nn.Module]
    make_optimizer: Callable[..., Optimizer]
    make_loader: Callable[[], DataLoader[Any]]
    make_val_loader: Callable[[], DataLoader[Any]] | None = None
    num_steps: int
    num_epochs: int = 1
    grad_accum_steps: int = 1
    eval_every_steps: int = 0


Run = Callable[[], nn.Module]  # trains, and returns the trained model; only this call is timed
Prepare = Callable[[Work, Path], Run]  # builds all objects of a training; the arguments are the workload and a folder


class Mlp(nn.Module):
    """An MLP with 64, 64 and 10 units."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the mean cross entropy of a batch of (features, labels)."""
        features, labels = batch
        return nn.functional.cross_entropy(self.head(nn.functional.relu(self.hidden(features))), labels)


class Cnn(nn.Module):
    """A network of two convolutions for images of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip

    def forward(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the mean cross entropy of a batch of (images, labels)."""
        images, labels = batch
        return nn.functional.cross_entropy(self.layers(images), labels)


class ByteGpt(nn.Module):
    """A small GPT over bytes."""

    def __init__(self) -> None:
        super().__init__()
        from loopwright.models import GPT

        self.gpt = GPT(context_length=CONTEXT_LENGTH, width=64, num_layers=2)

    def forward(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the mean cross entropy of a batch of one tensor, the rows of tokens."""
        loss: Tensor = self.gpt({"tokens": batch[0]})["loss"]
        return loss


class Leaver(Mlp):
    """An `Mlp` that ends the process in its second forward, after the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.num_calls = itertools.count()

    def forward(self, batch: Sequence[Tensor]) -> Tensor:
        """Return the loss of the first batch."""
        if next(self.num_calls):
            os._exit(0)
        return super().forward(batch)


class OwnSet(Dataset[Any]):
    """A data set as a user writes it, over a sequence of samples."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        """Return one sample."""
        return self.samples[index]


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Build a model with the weights of seed 0."""
    torch.manual_seed(0)
    return make()


def ready_batches(num_batches: int) -> list[tuple[Tensor, Tensor]]:
    """Return a list of random batches of 32 rows."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(BATCH_SIZE * num_batches, 64, generator=generator)
    labels = torch.randint(10, (BATCH_SIZE * num_batches,), generator=generator)
    return list(zip(features.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True))


def sgd(parameters: Any) -> Optimizer:
    """Return the optimizer of the MLP and the CNN."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def tiny_mlp(is_short: bool) -> Work:
    """Train an MLP on a user's data set of ready batches."""
    num_steps = 20 if is_short else 4000
    data = OwnSet(ready_batches(num_steps))
    return Work(
        make_model=lambda: seeded(Mlp),
        make_optimizer=sgd,
        make_loader=lambda: DataLoader(data, batch_size=None),
        num_steps=num_steps,
    )


def full_run(is_short: bool) -> Work:
    """Train an MLP with accumulation, a log line every 50 steps, and 4 times a validation and a checkpoint."""
    num_steps = 8 if is_short else 1000
    data: Any = ready_batches(4 * num_steps)
    return Work(
        make_model=lambda: seeded(Mlp),
        make_optimizer=sgd,
        make_loader=lambda: DataLoader(data, batch_size=None),
        make_val_loader=lambda: DataLoader(data[:20], batch_size=None),
        num_steps=num_steps,
        grad_accum_steps=4,
        eval_every_steps=num_steps // 4,
    )


def cnn_digits(is_short: bool) -> Work:
    """Train a CNN on a user's data set of the handwritten digits."""
    from loopwright.data import digits

    table: Any = digits().train.dataset
    samples = [(sample["image"], int(sample["label"])) for sample in (table[index] for index in range(len(table)))]
    num_epochs = 1 if is_short else 20
    data = OwnSet(samples[:640] if is_short else samples)
    loader: DataLoader[Any] = DataLoader(data, batch_size=BATCH_SIZE)
    return Work(
        make_model=lambda: seeded(Cnn),
        make_optimizer=sgd,
        make_loader=lambda: DataLoader(data, batch_size=BATCH_SIZE),
        num_steps=num_epochs * len(loader),
        num_epochs=num_epochs,
    )


def byte_gpt(is_short: bool) -> Work:
    """Train a small GPT on windows of the text of the Python standard library's `argparse`."""
    num_steps, batch_size = (10 if is_short else 150), 16
    text = torch.frombuffer(bytearray(Path(io.__file__).with_name("argparse.py").read_bytes()), dtype=torch.uint8)
    starts = [index * 37 % (len(text) - CONTEXT_LENGTH - 1) for index in range(num_steps * batch_size)]
    data = OwnSet([(text[start : start + CONTEXT_LENGTH + 1].long(),) for start in starts])
    return Work(
        make_model=lambda: seeded(ByteGpt),
        make_optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        make_loader=lambda: DataLoader(data, batch_size=batch_size),
        num_steps=num_steps,
    )


def start(is_short: bool) -> Work:
    """Train one step of an MLP, then end the process."""
    data: Any = ready_batches(45)
    return Work(
        make_model=lambda: seeded(Leaver),
        make_optimizer=sgd,
        make_loader=lambda: DataLoader(data, batch_size=None),
        num_steps=len(data),
    )


WORKS: Mapping[str, Callable[[bool], Work]] = {
    "W1": tiny_mlp,
    "W2": full_run,
    "W3": cnn_digits,
    "W4": start,
    "W5": byte_gpt,
}


def validate(model: Callable[[Any], Tensor], loader: Any) -> float:
    """Return the mean loss over a dataloader of batches of one size."""
    with torch.no_grad():
        losses = [model(batch) for batch in loader]
    return float(torch.stack(losses).mean())


def write_line(file: IO[str], values: Mapping[str, float]) -> None:
    """Append a JSON object to a file, and pass it to the operating system."""
    file.write(json.dumps(values) + "\n")
    file.flush()


def save_and_sync(model: nn.Module, optimizer: Optimizer, file: Path) -> None:
    """Write the weights and the state of the optimizer with `save_file`, and sync the file to the disk."""
    save_file({**model.state_dict(), **dict(_state_tensors(optimizer))}, file)
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _state_tensors(optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                yield f"{index}.{name}", value
