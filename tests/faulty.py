"""Faulty user code: a model, data and callbacks that fail in the way that their arguments name."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from loopwright import Callback
from loopwright.data import Loader, Splits


def _raise(error: BaseException) -> Any:
    raise error


ANSWERS: dict[str, Callable[[Tensor], Any]] = {
    "loss": lambda loss: loss,
    "None": lambda loss: None,
    "text": lambda loss: "loss",
    "tuple": lambda loss: (loss, loss),
    "number": lambda loss: 0.5,
    "misspelt": lambda loss: {"los": loss, "logits": loss},
    "logits": lambda loss: {"logits": loss.expand(4, 2)},
    "empty": lambda loss: {},
    "number_as_loss": lambda loss: {"loss": loss.item()},
    "None_as_loss": lambda loss: {"loss": None},
    "four": lambda loss: loss.expand(4),
    "detached": lambda loss: {"loss": loss.detach()},
    "whole": lambda loss: loss.long(),
    "complex": lambda loss: loss + 0j,
    "not_a_number": lambda loss: loss * math.nan,
    "infinite": lambda loss: loss * math.inf,
    "gradient": lambda loss: (loss * 0).sqrt(),
    "items": lambda loss: {"loss": loss, "num_items": -1},
    "complex_metric": lambda loss: {"loss": loss, "phase": loss + 0j},
    "raises": lambda loss: _raise(ValueError("two\nlines")),
    "asserts": lambda loss: _raise(AssertionError()),
    "key": lambda loss: {}["image"],
    "shapes": lambda loss: torch.zeros(3, 4) @ torch.zeros(5, 6),
    "exits": lambda loss: _raise(SystemExit(5)),
}


class Model(nn.Module):
    """Returns a valid loss ``after`` times, and then the value of ``ANSWERS[returns]``."""

    def __init__(self, returns: str = "loss", after: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.returns = returns
        self.num_left = after

    def forward(self, batch: Any) -> Any:
        self.num_left -= 1
        return ANSWERS["loss" if self.num_left >= 0 else self.returns]((self.weight - 1) ** 2)


class Empty(nn.Module):
    """A model without parameters."""

    def forward(self, batch: Tensor) -> Tensor:
        return batch.sum()


class Unbuildable(nn.Module):
    """A model whose constructor fails."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        if width == 0:
            raise OSError(28, "No space left on device", "weights.bin")
        raise ValueError(f"width {width}\nis odd")


class NoModel:
    """A class that is not an `nn.Module`."""


class Rows:
    """A data set in which sample ``row`` fails in the way that ``fault`` names."""

    def __init__(self, num_rows: int, fault: str, row: int = 5) -> None:
        self.num_rows = num_rows
        self.fault = fault
        self.row = row

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Tensor:
        if index == self.row and self.fault == "raises":
            raise KeyError("no such row")
        if index == self.row and self.fault == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self.row and self.fault == "exits":
            raise SystemExit(4)
        if index >= 10 and self.fault == "lies":
            raise IndexError("list index out of range")
        return torch.zeros(3 if index == self.row and self.fault == "ragged" else 4)


class Stream(IterableDataset[Tensor]):
    """An iterable data set of rows, without a length."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Tensor]:
        return (self.rows[index] for index in range(len(self.rows)))


class OwnLoader(DataLoader[Tensor]):
    """A subclass of `DataLoader`, which the trainer uses unchanged."""


class Batches:
    """Yields four batches, but reports ``length`` as its length."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.zeros(2, 4)] * 4)


def data(
    kind: str = "loader",
    fault: str = "none",
    row: int = 5,
    val_fault: str = "none",
    num_train: int = 16,
    num_val: int = 8,
    length: int = 4,
    val_length: int = 4,
    has_val: bool = True,
    batch_size: int = 4,
    num_workers: int = 0,
    persistent_workers: bool = False,
) -> Splits:
    """Return training and validation data with dataloaders of class ``kind``."""

    def read(num_rows: int, fault: str, length: int) -> Any:
        rows: Any = Rows(num_rows, fault, row)
        if kind == "batches":
            return Batches(length)
        if kind == "number":
            return 3
        make: Any = {"loader": Loader, "torch": DataLoader, "own": OwnLoader, "stream": DataLoader}[kind]
        options = {"persistent_workers": True} if persistent_workers else {}
        dataset = Stream(rows) if kind == "stream" else rows
        return make(dataset, batch_size=batch_size, num_workers=num_workers, **options)

    val = read(num_val, val_fault, val_length) if has_val else None
    return Splits(train=read(num_train, fault, length), val=val)


def no_data(path: str = "rows.bin", batch_size: int = 4, num_workers: int = 0) -> Splits:
    """Read a file that does not exist."""
    with open(path, "rb"):
        return Splits(train=[])


def number(batch_size: int = 4, num_workers: int = 0) -> int:
    """Return a number instead of data."""
    return 3


class Raising(Callback):
    """Raises an error in one hook."""

    def __init__(self, hook: str = "on_train_batch_end") -> None:
        setattr(self, hook, lambda *args: _raise(ValueError("told to")))


def _cut() -> None:
    """Truncate the newest checkpoint, and raise an error."""
    newest = max(Path().glob("*out/checkpoints/step_*")) / "model.safetensors"
    os.truncate(newest, newest.stat().st_size - 1)
    _raise(ValueError("told to"))


DEATHS: dict[str, Callable[[], Any]] = {
    "raise": lambda: _raise(ValueError("told to")),
    "cut": _cut,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "leave": lambda: os._exit(0),
    "terminate": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
    "interrupt_twice": lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)],
    "terminate_group": lambda: os.killpg(0, signal.SIGTERM),
    "interrupt_parent": lambda: os.kill(os.getppid(), signal.SIGINT),
    "interrupt_parent_and_kill": lambda: [
        os.kill(*each) for each in ((os.getppid(), signal.SIGINT), (os.getpid(), signal.SIGKILL))
    ],
    "kill_parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
}


class Dying(Callback):
    """Ends the run after each of ``steps`` in the way of ``DEATHS[how]``.

    After a positive step it does so only once, which it records in a file in the current directory. After a negative
    step it does so every time.
    """

    def __init__(self, how: str = "raise", steps: Sequence[int] = (3,)) -> None:
        self.how = how
        self.steps = steps

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if -trainer.global_step in self.steps:
            DEATHS[self.how]()
        if trainer.global_step in self.steps and not Path(f"died_{trainer.global_step}").exists():
            Path(f"died_{trainer.global_step}").touch()
            DEATHS[self.how]()


CONFIGS = {
    "model/empty": "",
    "model/wrapped": "_target_: loopwright.models.Supervised\nnet: {_target_: torch.nn.Flatten}\n",
    "model/net": "_target_: loopwright.models.Supervised\nnet: {_target_: torch.nn.Linear, in_features: 3}\n",
    "experiment/local": "model: mlp\n",
    "experiment/named_option": "# @package _global_\nmodel: mlp\n",
    "experiment/faulty": """\
# @package _global_
defaults:
  - override /model: faulty
  - override /data: faulty
  - override /loggers: none
name: faulty
log_every_n_steps: 1
loop: {max_steps: 4, eval_frequency: 2}
""",
    "model/faulty": "_target_: faulty.Model\nreturns: loss\nafter: 0\n",
    "model/parameterless": "_target_: faulty.Empty\n",
    "model/unbuildable": "_target_: faulty.Unbuildable\nwidth: 3\n",
    "model/none": "_target_: faulty.NoModel\n",
    "data/faulty": """\
_target_: faulty.data
kind: loader
fault: none
row: 5
val_fault: none
num_train: 16
num_val: 8
length: 4
val_length: 4
has_val: true
batch_size: 4
num_workers: 0
persistent_workers: false
""",
    "data/missing": "_target_: faulty.no_data\nbatch_size: 4\nnum_workers: 0\n",
    "data/number": "_target_: faulty.number\nbatch_size: 4\nnum_workers: 0\n",
    "callbacks/dying": "dying:\n  _target_: faulty.Dying\n  how: raise\n  steps: [3]\n",
    "callbacks/raising": "raising:\n  _target_: faulty.Raising\n  hook: on_train_batch_end\n",
}


def write_configs(folder: Path) -> None:
    """Write configuration files that name the objects of this module."""
    for name, text in CONFIGS.items():
        (folder / f"{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
