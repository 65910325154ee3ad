"""The trainings that `bench/gpu.py` compares: the `Trainer`, a hand-written loop, and Lightning, if it is installed.

All train Loopwright's `GPT`, compiled as a whole, with fused AdamW on the same random tokens. One call of a training
trains one turn, which continues the turn before.
"""

from __future__ import annotations

import functools
import importlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from loopwright import Callback, Checkpointing, Trainer, TrainingLoop
from loopwright.device import Device, Gpu, move_tensors
from loopwright.models import GPT

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LOG_EVERY_N_STEPS = 10

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Model, data and device of all trainings.

    Attributes:
        vocab_size: number of tokens in the vocabulary.
        context_length: number of input tokens in a row.
        width: model width.
        num_layers: number of blocks.
        num_heads: number of attention heads.
        batch_size: rows in a batch.
        payload_bytes: size of the further tensor in each batch of the row about transfers.
        num_steps: steps of a turn.
        num_skipped: first steps of a turn that are not timed.
        kind: "gpu", or "cpu" with ``--tiny``.
        backend: backend of `torch.compile`.
    """

    vocab_size: int = 50_304
    context_length: int = 1024
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    batch_size: int = 32
    payload_bytes: int = 1 << 28
    num_steps: int = 50
    num_skipped: int = 10
    kind: str = "gpu"
    backend: str = "inductor"

    @property
    def device(self) -> torch.device:
        """The torch device, such as "cuda"."""
        found = torch.accelerator.current_accelerator() if self.kind == "gpu" else None
        return torch.device("cpu") if found is None else torch.device(found.type, 0)

    @property
    def num_timed_tokens(self) -> int:
        """Number of predicted tokens in the timed steps of a turn."""
        return self.batch_size * self.context_length * (self.num_steps - self.num_skipped)

    def model(self) -> GPT:
        """Return the model, with equal weights in every call."""
        torch.manual_seed(0)
        return GPT(self.vocab_size, self.context_length, self.width, self.num_layers, self.num_heads)

    def batches(self, payload_bytes: int = 0) -> list[dict[str, Tensor]]:
        """Return the batches of a turn, in pinned memory if there is a GPU. All batches share the payload."""
        generator = torch.Generator().manual_seed(0)
        shape = self.batch_size, self.context_length + 1
        payload = {"payload": torch.zeros(payload_bytes // 4)} if payload_bytes else {}
        found = []
        for _ in range(self.num_steps):
            found.append({"tokens": torch.randint(self.vocab_size, shape, generator=generator), **payload})
        if self.kind == "cpu":
            return found
        payload = {name: each.pin_memory() for name, each in payload.items()}
        return [{"tokens": each["tokens"].pin_memory(), **payload} for each in found]

    def flops_per_token(self) -> int:
        """Return the FLOPs of a forward and a backward for one token; see the formula above."""
        with torch.device("meta"):
            model = self.model()
        assert model.position_embedding is not None
        num_parameters = sum(each.numel() for each in model.parameters()) - model.position_embedding.weight.numel()
        return 6 * num_parameters + 12 * self.num_layers * self.width * self.context_length


TINY = Setup(
    vocab_size=64,
    context_length=16,
    width=16,
    num_layers=2,
    num_heads=2,
    batch_size=4,
    payload_bytes=1 << 10,
    num_steps=12,
    num_skipped=2,
    kind="cpu",
    backend="aot_eager",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """Result of one turn of a training: seconds of the timed steps, and loss of the last step."""

    seconds: float
    loss: float


Training = Callable[[], Turn]  # each call trains one turn


class Stopwatch:
    """Measures the timed steps of a turn."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._num_done = 0
        self._begun = self._ended = math.nan

    def start(self) -> None:
        """Begin a turn."""
        self._num_done, self._begun, self._ended = 0, math.nan, math.nan

    def step(self) -> None:
        """Count a step. Before and after the timed steps, wait for the device and read the clock."""
        self._num_done += 1
        if self._num_done not in (self._setup.num_skipped, self._setup.num_steps):
            return
        if self._setup.kind != "cpu":
            torch.accelerator.synchronize()
        self._begun, self._ended = self._ended, time.perf_counter()

    def turn(self, loss: Tensor) -> Turn:
        """Return the result of a turn."""
        return Turn(self._ended - self._begun, float(loss))


def by_hand(setup: Setup, dtype: str) -> Training:
    """Return the hand-written loop. It reads the loss as often as the `Trainer` logs it."""
    device, watch, batches = setup.device, Stopwatch(setup), setup.batches()
    model = setup.model().to(device)
    model.compile(backend=setup.backend, dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    scaler = torch.amp.GradScaler(device.type) if dtype == "fp16" else None

    def train() -> Turn:
        watch.start()
        for step, batch in enumerate(batches, 1):
            moved = {"tokens": batch["tokens"].to(device, non_blocking=True)}
            with torch.autocast(device.type, dtype=DTYPES[dtype]):
                loss = model(moved)["loss"]
            if scaler is None:
                loss.backward()
                optimizer.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            optimizer.zero_grad()
            if step % LOG_EVERY_N_STEPS == 0:
                loss.detach().item()
            watch.step()
        return watch.turn(loss.detach())

    return train


class Timed(Callback):
    """Tells a `Stopwatch` about each step of a `Trainer`, and keeps the last loss."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch
        self.loss = torch.tensor(math.nan)

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Count the step."""
        self.loss = outputs["loss"].detach()
        self.watch.step()


def by_trainer(
    setup: Setup,
    dtype: str,
    *,
    checkpoint: Checkpointing | None = None,
    run_dir: Path | None = None,
    payload_bytes: int = 0,
    overlaps: bool = True,
) -> Training:
    """Return the training of the `Trainer`.

    Args:
        setup: model, data and device.
        dtype: "bf16" or "fp16".
        checkpoint: checkpoints that the training saves; None: it saves none.
        run_dir: run directory of the checkpoints.
        payload_bytes: size of a further tensor in each batch, which the model does not use.
        overlaps: whether batches are copied to a GPU on a stream of their own, as the `Trainer` does it.
    """
    watch, batches = Stopwatch(setup), setup.batches(payload_bytes)
    timed = Timed(watch)
    compiling = {"target": "model", "dynamic": False, "backend": setup.backend}
    trainer = Trainer(
        model=setup.model(),
        optimizer=functools.partial(torch.optim.AdamW, lr=3e-4, fused=True),
        loop=TrainingLoop(num_steps=setup.num_steps),
        device=Device(kind="cpu" if setup.kind == "cpu" else setup.device.type, compile=compiling),
        precision=dtype,
        checkpoint=checkpoint,
        callbacks=[timed],
        loggers=[],
        log_every_n_steps=LOG_EVERY_N_STEPS,
        run_dir=run_dir,
    )

    def train() -> Turn:
        watch.start()
        with nullcontext() if overlaps else copying_on_the_current_stream():
            trainer.fit(batches)
        return watch.turn(timed.loss)

    return train


def copying_on_the_current_stream() -> AbstractContextManager[object]:
    """Return a context in which a `Gpu` copies batches on the stream of the computations."""
    return mock.patch.object(Gpu, "move", lambda gpu, batch: move_tensors(batch, gpu.torch_device))


def by_lightning(setup: Setup, dtype: str) -> Training:
    """Return the training of Lightning's trainer.

    Raises:
        ImportError: if Lightning is not installed.
    """
    lightning: Any = importlib.import_module("lightning")
    watch, batches = Stopwatch(setup), setup.batches()

    class Module(lightning.LightningModule):  # type: ignore[misc]  # a class without annotations
        def __init__(self) -> None:
            super().__init__()
            self.net = setup.model()
            self.net.compile(backend=setup.backend, dynamic=False)
            self.loss = torch.tensor(math.nan)

        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            loss: Tensor = self.net(batch)["loss"]
            self.log("train/loss", loss)
            self.loss = loss.detach()
            return loss

        def on_train_batch_end(self, *_: Any) -> None:
            watch.step()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.net.parameters(), lr=3e-4, fused=True)

    module = Module()

    def train() -> Turn:
        trainer = lightning.Trainer(
            max_steps=setup.num_steps,
            accelerator=setup.kind,
            devices=1,
            precision={"bf16": "bf16-mixed", "fp16": "16-mixed"}[dtype],
            log_every_n_steps=LOG_EVERY_N_STEPS,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        watch.start()
        trainer.fit(module, batches)
        return watch.turn(module.loss)

    return train
