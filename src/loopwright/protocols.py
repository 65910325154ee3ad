"""Protocols of devices, processes, strategies, batch sources, schedulers, and models."""

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
    """A device on which a model runs."""

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
        """Whether `move` may change a batch. If False, a training step does not call `move`."""
        ...

    @property
    def sum_dtype(self) -> torch.dtype:
        """The widest floating-point dtype for sums on this device."""
        ...

    @property
    def stream(self) -> DeviceStream | None:
        """The random number generator of this device; None if the device uses torch's CPU generator."""
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

        The result is empty if this machine cannot measure the peak memory.
        """
        ...

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether an error says that this device has no more memory."""
        ...

    def free_memory(self) -> None:
        """Return memory that torch keeps for later tensors to the device."""
        ...

    def move(self, batch: Any) -> Any:
        """Return ``batch`` with all its tensors on this device, in the memory format of the run."""
        ...


class Pending(Protocol):
    """A sum over the processes that has been started and may be incomplete."""

    def wait(self) -> None:
        """Wait until the tensor that was passed to `Ranks.add` contains the sum."""
        ...


class Ranks(Protocol):
    """The group of processes that train one model together."""

    @property
    def rank(self) -> int:
        """Index of this process, from 0. Only process 0 writes files in the run directory."""
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
        """Start to sum ``values`` over the processes. The sum replaces the contents of ``values``."""
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
    """Places a model on one or several processes, calls the model, sums its gradients and gathers its weights."""

    @property
    def ranks(self) -> Ranks:
        """The processes that train the model."""
        ...

    @property
    def is_sharded(self) -> bool:
        """Whether each process stores only a part of each weight."""
        ...

    @property
    def splits_on_oom(self) -> bool:
        """Whether a micro-batch is split after an out-of-memory error."""
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
        """Whether the next training step will compile the model. `FitLoop` sets this to False after the step."""
        ...

    @is_compile_pending.setter
    def is_compile_pending(self, value: bool) -> None: ...

    def set_up(self, model: nn.Module, device: Accelerator, precision: Precision) -> None:
        """Move the model to the device in place, with the dtype of ``precision``, before the optimizer is built."""
        ...

    def computing(self) -> AbstractContextManager[None]:
        """Return a context that changes process-wide settings of torch during a fit, a validation or predictions."""
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
    """Description of a dataloader. An attribute is None if its value is unknown.

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
        """Whether `read` can start at any batch without reading the earlier batches."""
        ...

    @property
    def is_one_shot(self) -> bool:
        """Whether each batch can be read only once."""
        ...

    @property
    def facts(self) -> DataFacts:
        """Description of the dataloader."""
        ...

    def num_samples(self, batch_index: int) -> int | None:
        """Return the number of sample indices of a batch in the current pass; None: unknown.

        Args:
            batch_index: index, from 0 in the pass, of a batch that was read recently.
        """
        ...

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """Iterate over the batches of a pass, starting at the batch with index ``first``, from 0."""
        ...

    def peek(self) -> tuple[Any] | None:
        """Read the first batch of pass 0, and return a tuple with this batch.

        Return None if the pass has no batch, or if reading its first batch now could change the batches of later reads.
        """
        ...

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state that a resume needs besides the pass index and micro-batch index; None: no such state."""
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
    """A model that can check a batch before training. The check must work without allocated weights."""

    def check_batch(self, batch: Any) -> None:
        """Check a batch on the CPU.

        Raises:
            SettingError: if the batch does not fit the model. The message names the setting to change.
        """
        ...


@runtime_checkable
class StopsAgain(Protocol):
    """A callback that can stop a run, and that also stops a resume of this run unless a setting changes."""

    @property
    def to_continue(self) -> Mapping[str, object]:
        """New values for settings of the callback, by name, with which a resume continues training.

        Empty if a resume cannot continue training.
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
    """A callback that names the metric whose value is the result of the run."""

    @property
    def objective(self) -> str:
        """Full name of the metric."""
        ...
