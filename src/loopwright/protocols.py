"""What floors ask of objects from others: a device, a source of batches, a scheduler, a model that checks batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from loopwright.precision import Precision


class DeviceStream(Protocol):
    """The random stream of an accelerator."""

    def get_state(self) -> Tensor:
        """Its state, uint8."""
        ...

    def set_state(self, state: Tensor) -> None:
        """Continue from ``state``."""
        ...

    def seed(self, seed: int) -> None:
        """Start again from ``seed``."""
        ...


class Accelerator(Protocol):
    """Where a model computes."""

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        ...

    @property
    def is_host(self) -> bool:
        """Whether batches are there without being moved."""
        ...

    @property
    def sum_dtype(self) -> torch.dtype:
        """The widest floating-point type it can add up in."""
        ...

    @property
    def stream(self) -> DeviceStream | None:
        """Its random stream; None where torch's CPU stream is all there is."""
        ...

    def peak_memory_bytes(self) -> int:
        """The most memory that this process has held at once, on the device that it computes on."""
        ...

    def move(self, batch: Any) -> Any:
        """The batch with every tensor in it on this device."""
        ...


class Pending(Protocol):
    """A sum over the processes that has begun."""

    def wait(self) -> None:
        """Wait until the sum stands in the tensor that it was begun with."""
        ...


class Ranks(Protocol):
    """The processes that train one model together, as one of them sees them."""

    @property
    def rank(self) -> int:
        """Number of this process, counted from 0; process 0 alone writes the run directory."""
        ...

    @property
    def world_size(self) -> int:
        """Number of processes."""
        ...

    @property
    def local_rank(self) -> int:
        """Number of this process among those on its machine."""
        ...

    def add(self, values: Tensor) -> Pending:
        """Begin to sum ``values`` over the processes, in place, on the tensor's device."""
        ...

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """The data of every process, in order; every process gets all of it."""
        ...

    def share_bytes(self, data: bytes | None) -> bytes:
        """The data of process 0; the others pass None."""
        ...

    def leave(self) -> None:
        """Leave the group, without waiting for another process."""
        ...


class Strategy(Protocol):
    """How one model is placed, called, summed and gathered by the processes that train it."""

    @property
    def ranks(self) -> Ranks:
        """The processes."""
        ...

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds only a part of each weight."""
        ...

    @property
    def call(self) -> Callable[..., Any]:
        """The forward of training: called with a batch, returns the outputs of the model."""
        ...

    @property
    def evaluate(self) -> Callable[..., Any]:
        """The forward of validation, which communicates only if the model is sharded."""
        ...

    def set_up(self, model: nn.Module, device: Accelerator, precision: Precision) -> None:
        """Place the model on the device in the types of ``precision``, in place, before its optimizer is made."""
        ...

    def synchronised(self, is_on: bool) -> AbstractContextManager[None]:
        """The context around a forward and its backward; ``is_on``: the backward sums gradients over the processes."""
        ...

    def backward(self, total: Tensor | None, word: Tensor) -> None:
        """Run the backward of a weighted loss, and add ``word`` to the numbers that the processes agree on.

        Args:
            total: the loss times its items; None: this process has no rows of the micro-batch.
            word: numbers of this process, such as its items; summed over the window and the processes.
        """
        ...

    def agreed(self) -> Tensor:
        """The words summed over the window and the processes, still on the device; the next window begins anew."""
        ...

    def equalise_buffers(self) -> None:
        """Give every process the buffers of process 0; called before a validation and a save."""
        ...

    def whole(self, tensor: Tensor) -> Tensor | None:
        """The whole of a tensor on the host of process 0; None on the others. Every process calls this."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What is known of how a dataloader reads its data set; None: unknown.

    Attributes:
        num_samples: in the data set.
        batch_size: samples in a micro-batch.
        order: "shuffled", "in order", or the class of the sampler.
        drop_last: whether a smaller last batch is left out.
    """

    num_samples: int | None = None
    batch_size: int | None = None
    order: str | None = None
    drop_last: bool | None = None


class BatchSource(Protocol):
    """A dataloader as the engine reads it: any pass, from any micro-batch."""

    @property
    def num_batches(self) -> int | None:
        """Batches in a pass; None where that is unknown."""
        ...

    @property
    def is_sought(self) -> bool:
        """Whether reading may begin anywhere at no cost."""
        ...

    @property
    def is_one_shot(self) -> bool:
        """Whether nothing of it can be read twice."""
        ...

    @property
    def facts(self) -> DataFacts:
        """What is known of what it reads."""
        ...

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """The batches of a pass from number ``first`` on."""
        ...

    def state_dict(self) -> dict[str, Any] | None:
        """What is needed beside the position to go on; None: nothing."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, where that was not None."""
        ...


class StatefulScheduler(Protocol):
    """A learning-rate scheduler."""

    def step(self, metric: float = ...) -> None:
        """Go on by one step; one that needs a metric is handed it."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state."""
        ...


@runtime_checkable
class ChecksBatches(Protocol):
    """A model that can tell before it is trained, and without weights, whether it takes a batch."""

    def check_batch(self, batch: Any) -> None:
        """Refuse a batch on the CPU that it cannot take: a `SettingError` with the setting to change."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model, as evaluations of text need it."""

    context_length: int

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """For int64 tokens, batch x T with T at most `context_length`, the logits of the token after each.

        They are batch x T x vocabulary, and those of a position do not depend on tokens that come after it.
        """
        ...


@runtime_checkable
class CachingLanguageModel(LanguageModel, Protocol):
    """One that may keep what it has read, so that a generated token costs no second reading of those before it."""

    caches: bool

    def begin(self, tokens_BT: Tensor, lengths_B: Tensor) -> tuple[Tensor, Any]:
        """Read prompts, whose rows are filled up at their ends to T.

        Returns:
            The logits of the token after each prompt, batch x vocabulary, and what `go_on` goes on from.
        """
        ...

    def go_on(self, tokens_B: Tensor, read: Any) -> tuple[Tensor, Any]:
        """Read one more token in each row; returns as `begin`."""
        ...


class Tokenizer(Protocol):
    """How a language model's texts become tokens."""

    vocab_size: int
    prefix_token: int
    end_token: int | None

    def encode(self, text: str) -> list[int]:
        """The tokens of ``text``, without any that stand for its beginning or end."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """The text of ``tokens``."""
        ...
