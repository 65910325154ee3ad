"""What floors ask of objects from others: a device, a source of batches, a scheduler, a model that checks batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


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
