"""`Single`: one process that holds the whole model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from loopwright.device.ranks import Alone
from loopwright.precision import Precision
from loopwright.protocols import Accelerator, Ranks


class Single:
    """Trains a model in this process alone.

    `call` and `evaluate` are the module itself, so that a forward costs no further function call.
    """

    is_sharded = False

    def __init__(self) -> None:
        self._model: nn.Module | None = None
        self._words: Tensor | None = None

    @property
    def ranks(self) -> Ranks:
        """This process."""
        return Alone()

    @property
    def call(self) -> Callable[..., Any]:
        """The model.

        Raises:
            RuntimeError: before `set_up`.
        """
        if self._model is None:
            raise RuntimeError("set_up comes first.")
        return self._model

    @property
    def evaluate(self) -> Callable[..., Any]:
        """The model."""
        return self.call

    def set_up(self, model: nn.Module, device: Accelerator, precision: Precision) -> None:
        """Move the model to the device, in place; float32 changes no type."""
        self._model = model.to(device.torch_device)

    def synchronised(self, is_on: bool) -> AbstractContextManager[None]:
        """There is nothing to synchronise."""
        return nullcontext()

    def backward(self, total: Tensor | None, word: Tensor) -> None:
        """Run the backward of ``total``, and keep the sum of the words."""
        if total is not None:
            total.backward()  # type: ignore[no-untyped-call]
        self._words = word.clone() if self._words is None else self._words + word

    def agreed(self) -> Tensor:
        """The sum of the words since the last call.

        Raises:
            RuntimeError: if there was no `backward` since.
        """
        words, self._words = self._words, None
        if words is None:
            raise RuntimeError("backward comes first.")
        return words

    def equalise_buffers(self) -> None:
        """The buffers of one process are equal."""

    def whole(self, tensor: Tensor) -> Tensor:
        """The tensor on the host."""
        return tensor.detach().cpu()
