"""Protocols of devices, processes, strategies, batch sources, schedulers, models and tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from loopwright.precision import Precision


class DeviceStream(Protocol):
    """The random number generator of an accelerator."""

    def get_state(self) -> Tensor:
        """Return the state as a uint8 tensor."""
        ...

    def set_state(self, state: Tensor) -> None:
        """Set the state to a result of `get_state`."""
        ...

    def seed(self, seed: int) -> None:
        """Seed the generator."""
        ...


class Accelerator(Protocol):
    """A device on which a model is computed."""

    @property
    def torch_device(self) -> torch.device:
        """The corresponding torch device."""
        ...

    @property
    def name(self) -> str:
        """A description of the device in one line, such as "cpu, 2 threads"."""
        ...

    @property
    def changes_batches(self) -> bool:
        """Whether `move` changes batches, which it need not do on the CPU."""
        ...

    @property
    def sum_dtype(self) -> torch.dtype:
        """The widest floating-point dtype for sums on this device."""
        ...

    @property
    def stream(self) -> DeviceStream | None:
        """The random number generator of this device; None if it uses torch's CPU generator."""
        ...

    @property
    def hardware(self) -> str:
        """Name of the hardware, such as "NVIDIA H200"; "cpu" for every CPU."""
        ...

    def peak_memory_bytes(self) -> int:
        """Return the peak memory of this process on this device in bytes."""
        ...

    def take_peak_memory(self) -> dict[str, int]:
        """Return the peak memory since the last call in bytes, by name such as ``peak_reserved_bytes``.

        The result is empty if this machine cannot measure it.
        """
        ...

    def move(self, batch: Any) -> Any:
        """Return ``batch`` with all its tensors on this device, in the memory format of the run."""
        ...


class Pending(Protocol):
    """A sum over the processes that was started and may not be complete yet."""

    def wait(self) -> None:
        """Wait until the tensor that was passed to `Ranks.add` contains the sum."""
        ...


class Ranks(Protocol):
    """The processes that train one model together, and the index of this process among them."""

    @property
    def rank(self) -> int:
        """Index of this process, from 0. Only process 0 writes the run directory."""
        ...

    @property
    def world_size(self) -> int:
        """Number of processes."""
        ...

    @property
    def local_rank(self) -> int:
        """Index of this process, from 0, among the processes on its machine."""
        ...

    def add(self, values: Tensor) -> Pending:
        """Start to sum ``values`` over the processes, in place, on the device of the tensor."""
        ...

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Return the data of all processes in the order of their ranks. Every process gets the same list."""
        ...

    def share_bytes(self, data: bytes | None) -> bytes:
        """Return the data of process 0 in every process. The other processes pass None."""
        ...

    def leave(self) -> None:
        """Leave the group of processes without waiting for the other processes."""
        ...


class Strategy(Protocol):
    """Places a model on the processes that train it, calls it, sums its gradients and gathers its weights."""

    @property
    def ranks(self) -> Ranks:
        """The processes that train the model."""
        ...

    @property
    def is_sharded(self) -> bool:
        """Whether each process stores only a part of each weight."""
        ...

    @property
    def call(self) -> Callable[..., Any]:
        """The forward in training: a function from a batch to the outputs of the model."""
        ...

    @property
    def evaluate(self) -> Callable[..., Any]:
        """The forward in validation. Processes communicate in this forward only if the model is sharded."""
        ...

    @property
    def recorded(self) -> Mapping[str, object]:
        """Settings of the strategy by name, as JSON scalars. A resume with other values is refused."""
        ...

    @property
    def is_compile_pending(self) -> bool:
        """Whether the model will be compiled in the next training step. `FitLoop` sets this to False afterwards."""
        ...

    @is_compile_pending.setter
    def is_compile_pending(self, value: bool) -> None: ...

    def set_up(self, model: nn.Module, device: Accelerator, precision: Precision) -> None:
        """Place the model on the device, in place, with the dtypes of ``precision``. The optimizer is built later."""
        ...

    def computing(self) -> AbstractContextManager[None]:
        """Return a context for a fit, a validation or predictions, which applies process-wide settings of torch."""
        ...

    def begin_window(self) -> None:
        """Prepare the processes for the forwards and backwards of one step. Not called if there is one process."""
        ...

    def synchronised(self, is_on: bool) -> AbstractContextManager[None]:
        """Return a context for forwards and their backwards. If ``is_on``, gradients are averaged over the processes.

        The gradients of backwards in a context that is off are included in the next average.
        """
        ...

    def take_part(self, loss: Tensor | None) -> None:
        """Join the communication of the other processes in a micro-batch to which this process adds no gradient.

        Args:
            loss: loss of this micro-batch, which has no items; None: there was no forward in this micro-batch.
        """
        ...

    def equalise_buffers(self) -> None:
        """Copy the model's buffers from process 0 to every process. Called before each validation and each save."""
        ...

    def whole(self, tensor: Tensor) -> Tensor | None:
        """Return the whole tensor on the CPU in process 0, and None in the other processes.

        Every process must call this method.
        """
        ...

    def join(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """Return a sharded tensor of this shape with ``rows`` in this process. Return ``rows`` if none is sharded."""
        ...


@dataclass(frozen=True, slots=True)
class Padding:
    """What a process gets from its dataloader instead of a micro-batch that has no row for this process.

    The process computes ``batch`` with weight 0. It calls the same hooks as the other processes, so that callbacks
    change the state of the run in every process.

    Attributes:
        batch: a batch that does not count; None if this process has read no batch yet.
    """

    batch: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """Properties of a dataloader. Unknown properties are None.

    Attributes:
        num_samples: number of samples in the data set.
        batch_size: number of samples in a micro-batch.
        order: "shuffled", "in order", or the class name of the sampler.
        drop_last: whether an incomplete last batch is dropped.
    """

    num_samples: int | None = None
    batch_size: int | None = None
    order: str | None = None
    drop_last: bool | None = None


class BatchSource(Protocol):
    """A source of batches. The engine can read any pass from it, starting at any micro-batch."""

    @property
    def num_batches(self) -> int | None:
        """Number of batches in a pass; None if unknown."""
        ...

    @property
    def max_batches(self) -> int | None:
        """Largest number of batches that a pass can have; None if unknown."""
        ...

    @property
    def is_sought(self) -> bool:
        """Whether `read` can start at any batch without reading the batches before it."""
        ...

    @property
    def is_one_shot(self) -> bool:
        """Whether each batch can be read only once."""
        ...

    @property
    def facts(self) -> DataFacts:
        """Properties of the dataloader, for descriptions."""
        ...

    def num_samples(self, batch_index: int) -> int | None:
        """Return the number of indices read for a batch of the current pass, without looking at it; None if unknown.

        Args:
            batch_index: index of a batch in the pass, from 0. The batch was read recently.
        """
        ...

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """Iterate over the batches of a pass, starting at the batch with index ``first``, from 0."""
        ...

    def peek(self) -> tuple[Any] | None:
        """Read the first batch of pass 0, and return a tuple with this batch.

        Return None if there is no batch, or if reading it now could change the batches that are read later.
        """
        ...

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state that a resume needs besides the pass index and micro-batch index; None if there is none."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned. The state is never None."""
        ...


class StatefulScheduler(Protocol):
    """A learning-rate scheduler."""

    def step(self, metric: float = ...) -> None:
        """Advance the schedule by one step. ``metric`` is passed only to schedulers that monitor a metric."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the scheduler for a checkpoint."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        ...


@runtime_checkable
class ChecksBatches(Protocol):
    """A model that can check a batch before training, even if its weights are not allocated."""

    def check_batch(self, batch: Any) -> None:
        """Check a batch on the CPU.

        Raises:
            SettingError: if the batch does not fit the model; the message names the setting to change.
        """
        ...


@runtime_checkable
class StopsAgain(Protocol):
    """A callback that saves its decision to stop a run, and stops a resumed run at once unless a setting changes."""

    @property
    def to_continue(self) -> Mapping[str, object]:
        """New values of settings of the callback, by name, with which a resume trains further.

        Empty if a resume cannot train further.
        """
        ...


@runtime_checkable
class LogsMetrics(Protocol):
    """A shipped callback that logs metrics whose names do not follow from the names of the validations."""

    def logs(self, metric: str) -> bool:
        """Return whether this callback may log a metric with the full name ``metric``."""
        ...


@runtime_checkable
class HasObjective(Protocol):
    """A callback of a run that has one metric as its result."""

    @property
    def objective(self) -> str:
        """Full name of the metric."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model that text evaluations can use."""

    context_length: int

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Return the logits of the token after each position, of shape (batch, T, vocabulary).

        The logits at a position must not depend on later tokens.

        Args:
            tokens_BT: int64 tensor of shape (batch, T), with T at most `context_length`.
        """
        ...


@runtime_checkable
class CachingLanguageModel(LanguageModel, Protocol):
    """A language model that may cache its results for earlier tokens, so that generation does not repeat them."""

    caches: bool

    def begin(self, tokens_BT: Tensor, lengths_B: Tensor) -> tuple[Tensor, Any]:
        """Process prompts. Row i of ``tokens_BT`` contains ``lengths_B[i]`` tokens, padded at the end to T tokens.

        Returns:
            The logits of the token after each prompt, of shape (batch, vocabulary), and the state for `go_on`.
        """
        ...

    def go_on(self, tokens_B: Tensor, read: Any) -> tuple[Tensor, Any]:
        """Process one more token in each row, starting from the state ``read``. Return new logits and a new state."""
        ...


class Tokenizer(Protocol):
    """Converts between text and the tokens of a language model."""

    vocab_size: int
    prefix_token: int
    end_token: int | None

    def encode(self, text: str) -> list[int]:
        """Convert ``text`` to tokens, without special tokens for the beginning or the end."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """Convert ``tokens`` to text."""
        ...
