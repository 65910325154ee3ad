"""`Run`, the run that `chaos.py` interrupts, and `Child`, a forked process for a run.

The run contains all kinds of state that an interruption could damage: dropout, batch statistics, AdamW with a schedule,
averaged weights, the counters of early stopping, shuffled data with noise on each sample, workers, steps of three
micro-batches with a shorter last step in each pass, and validations between the saves.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from loopwright import Callback, Checkpointing, Trainer, TrainingLoop
from loopwright.callbacks import EarlyStopping, ExponentialMovingAverage
from loopwright.data import Loader
from loopwright.loggers import JSONLinesLogger

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
NUM_STEPS = 60  # three passes of 59 micro-batches, 20 steps each
NOISES = ("none", "torch", "numpy", "python")


class Rows(Dataset[Any]):
    """A data set of random rows, with noise that is drawn from the generator named by ``noise`` (see `NOISES`)."""

    def __init__(self, num_rows: int, noise: str) -> None:
        generator = torch.Generator().manual_seed(5)
        self._features = torch.randn(num_rows, 8, generator=generator)
        self._target = torch.randn(num_rows, 1, generator=generator)
        self._noise = noise

    def __len__(self) -> int:
        return len(self._target)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = {
            "none": lambda: 0.0,
            "torch": lambda: torch.randn(8),
            "numpy": lambda: torch.from_numpy(numpy.random.randn(8)).float(),
            "python": lambda: random.gauss(0.0, 1.0),
        }[self._noise]()
        return self._features[index] + 0.1 * noise, self._target[index]


class Model(nn.Module):
    """A small network with dropout and batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 1))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return the mean squared error of a batch of (features, targets)."""
        return {"loss": (self.layers(batch[0]) - batch[1]).square().mean()}


@dataclass(frozen=True, slots=True)
class Row:
    """Result of an experiment: the number of successful tries, the number of all tries, and a detail as text."""

    name: str
    num_good: int
    num_tries: int
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.num_good}/{self.num_tries}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: an uninterrupted run, the part of a run before an interruption, or a resumed run.

    Args:
        directory: run directory.
        ckpt_path: checkpoint or run directory to resume from; None to start a new run.
        seed: seed of the trainer. A resumed run uses the seed in its checkpoint instead.
        num_steps: number of steps of the whole run.
        save_every: number of steps between saves.
        keep_last: number of checkpoints to keep; None keeps all.
        background: whether checkpoints are written in the background.
        num_workers: number of worker processes of the training dataloader.
        noise: random generator of the noise on the samples, one of `NOISES`.
        stop_at: step after which the run is interrupted and saved; None for no interruption.
        callbacks: additional callbacks.
    """

    directory: Path
    ckpt_path: Path | None = None
    seed: int = 0
    num_steps: int = NUM_STEPS
    save_every: int = 4
    keep_last: int | None = None
    background: bool = False
    num_workers: int = 0
    noise: str = "torch"
    stop_at: int | None = None
    callbacks: tuple[Callback, ...] = field(default=())

    def fit(self) -> Trainer:
        """Train, and return the trainer."""
        stop = [] if self.stop_at is None else [_StopAt(self.stop_at)]
        trainer = Trainer(
            model=Model,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
            schedulers=[_cosine],
            loop=TrainingLoop(max_steps=self.num_steps, eval_frequency=7, grad_accum_steps=3),
            device="cpu",
            checkpoint=Checkpointing(
                self.save_every, keep_last=self.keep_last, background=self.background, at_validations=False
            ),
            callbacks={
                "early_stopping": EarlyStopping(patience=100),
                "average": ExponentialMovingAverage(decay=0.9),
                **{f"callback_{index}": callback for index, callback in enumerate((*stop, *self.callbacks))},
            },
            loggers={"json_lines": JSONLinesLogger()},
            log_every_n_steps=1,
            seed=self.seed,
            run_dir=self.directory,
        )
        train = Loader(Rows(236, self.noise), batch_size=4, shuffle=True, num_workers=self.num_workers)
        with trainer:
            trainer.fit(train, Loader(Rows(30, "none"), batch_size=8), ckpt_path=self.ckpt_path)
        return trainer

    def finish(self) -> str:
        """Train in a new process, and return the digest of the run."""
        child = Child(lambda: digest(self.fit()))
        return str(child.result())

    def resumed(self, **changes: Any) -> Run:
        """Return a run that resumes this run from its newest checkpoint, in the same directory."""
        return replace(self, ckpt_path=self.directory, callbacks=(), **changes)


def _cosine(optimizer: Any, total_steps: int) -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps)


class _StopAt(Callback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self._step:
            trainer.stop("cut here", is_interruption=True)


class Telling(Callback):
    """Writes a letter to a pipe when a fit starts (S), a save begins (B) and a save has ended (E)."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def on_fit_start(self, *_: Any) -> None:
        """Report the start of the fit."""
        os.write(self._descriptor, b"S")

    def on_save_checkpoint(self, *_: Any) -> None:
        """Report the beginning of a save."""
        os.write(self._descriptor, b"B")

    def on_after_save_checkpoint(self, *_: Any) -> None:
        """Report the end of a save."""
        os.write(self._descriptor, b"E")


def digest(trainer: Trainer) -> str:
    """Return a SHA-256 digest of the weights, optimizer state, averaged weights and metrics of the whole run."""
    assert trainer.optimizer is not None and trainer.run_dir is not None
    hasher = hashlib.sha256()
    average = next(callback for callback in trainer.callbacks if isinstance(callback, ExponentialMovingAverage))
    _update(hasher, [trainer.model.state_dict(), trainer.optimizer.state_dict(), average.state_dict()])
    hasher.update((trainer.run_dir / "metrics.jsonl").read_bytes())
    return hasher.hexdigest()


def _update(hasher: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        hasher.update(repr((value.dtype, tuple(value.shape))).encode() + value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key, item in value.items():
            hasher.update(repr(key).encode())
            _update(hasher, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _update(hasher, item)
    else:
        hasher.update(repr(value).encode())


class Child:
    """Runs a function in a forked process, which starts fast because torch is already imported.

    Args:
        function: function that returns a value for JSON. If a signal stops the function, the process exits with the
            exit code of the ``loopwright`` command for this signal.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._reader, writer = os.pipe()
        sys.stdout.flush()
        usual = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # blocked until the child has its handlers
        self.process_id = os.fork()
        if self.process_id == 0:
            os.close(self._reader)
            _live(function, writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)
        os.close(writer)
        with suppress(OSError):  # the child also sets this group, and may already have ended
            os.setpgid(self.process_id, self.process_id)

    def kill(self, number: int, *, whole_group: bool = False) -> None:
        """Send a signal to the process and, if ``whole_group`` is true, also to its dataloader workers."""
        (os.killpg if whole_group else os.kill)(self.process_id, number)

    def wait(self) -> int:
        """Wait for the process, and return its exit code. If a signal killed the process, the code is -signal."""
        _, status = os.waitpid(self.process_id, 0)
        return os.waitstatus_to_exitcode(status)

    def ends_within(self, seconds: float) -> bool:
        """Return whether the process ends within ``seconds``. `wait` must still be called."""
        deadline = time.monotonic() + seconds
        while os.waitid(os.P_PID, self.process_id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def result(self) -> Any:
        """Wait for the process, and return the result of its function.

        Raises:
            RuntimeError: if the process failed.
        """
        code = self.wait()
        text = self.read()
        if code != 0:
            raise RuntimeError(f"exit code {code}: {text}")
        return json.loads(text)

    def read(self) -> str:
        """Return the text that the process wrote to the pipe: the result of its function as JSON, or a traceback.

        The read does not block, because workers may keep the pipe open, and a blocking read would then not end.
        """
        os.set_blocking(self._reader, False)
        parts = []
        try:
            while part := os.read(self._reader, 65536):
                parts.append(part)
        except BlockingIOError:
            pass
        os.close(self._reader)
        return b"".join(parts).decode()


def _live(function: Callable[[], object], writer: int) -> None:
    """Run the function in the child process, write its result to the pipe, and exit the process."""
    code, text = 1, ""
    try:
        os.setpgid(0, 0)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        warnings.simplefilter("ignore")  # torch warns if there are more workers than cores
        text, code = json.dumps(function()), 0
    except KeyboardInterrupt:
        code = 130
    except SystemExit as end:
        code = int(str(end.code))
    except BaseException:  # noqa: BLE001  (the traceback is sent to the parent)
        text = traceback.format_exc()
    finally:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.write(writer, text.encode()[-60000:])
        finally:
            os._exit(code)
