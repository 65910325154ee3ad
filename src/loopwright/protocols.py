"""Protocols of objects that modules receive without importing their classes: devices, batch sources, models, …"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


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
    def is_host(self) -> bool:
        """Whether this is the CPU, to which batches need not be moved."""
        ...

    @property
    def sum_dtype(self) -> torch.dtype:
        """The widest floating-point type for sums on this device."""
        ...

    @property
    def stream(self) -> DeviceStream | None:
        """The random number generator of this device; None if it uses torch's CPU generator."""
        ...

    def peak_memory_bytes(self) -> int:
        """Return the peak memory of this process on this device in bytes."""
        ...

    def move(self, batch: Any) -> Any:
        """Return ``batch`` with every tensor in it on this device."""
        ...


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
    """A source of batches from which the engine can read any pass, starting at any micro-batch."""

    @property
    def num_batches(self) -> int | None:
        """Number of batches in a pass; None if unknown."""
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

    def read(self, pass_index: int, first: int) -> Iterator[Any]:
        """Iterate over the batches of a pass, from batch number ``first`` on."""
        ...

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state that a resume needs in addition to the position; None for none."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from `state_dict` that is not None."""
        ...


class StatefulScheduler(Protocol):
    """A learning-rate scheduler."""

    def step(self, metric: float = ...) -> None:
        """Advance the schedule by one step. ``metric`` is passed only to schedulers that monitor one."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the scheduler."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state from `state_dict`."""
        ...


@runtime_checkable
class ChecksBatches(Protocol):
    """A model that can check a batch before training, even without allocated weights."""

    def check_batch(self, batch: Any) -> None:
        """Check a batch on the CPU.

        Raises:
            SettingError: if the batch does not fit the model; the message names the setting to change.
        """
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model that text evaluations can use."""

    context_length: int

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Return the logits of the token that follows each token, batch x T x vocabulary.

        The logits at a position must not depend on later tokens.

        Args:
            tokens_BT: tokens, int64, batch x T with T at most `context_length`.
        """
        ...


@runtime_checkable
class CachingLanguageModel(LanguageModel, Protocol):
    """A language model that may cache the tokens it has read, so that generation does not read them again."""

    caches: bool

    def begin(self, tokens_BT: Tensor, lengths_B: Tensor) -> tuple[Tensor, Any]:
        """Read prompts of ``lengths_B`` tokens, each padded at the end to T tokens.

        Returns:
            The logits of the token after each prompt, batch x vocabulary, and the state for `go_on`.
        """
        ...

    def go_on(self, tokens_B: Tensor, read: Any) -> tuple[Tensor, Any]:
        """Read one more token in each row, starting from the state ``read``. The result is as for `begin`."""
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
