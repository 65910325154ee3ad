"""`Single`: the strategy that trains the whole model in one process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from loopwright.device.compiling import check_compiler, compile_model
from loopwright.device.device import Device
from loopwright.device.matmul import matmul_precision
from loopwright.device.memory_format import convert_weights
from loopwright.device.ranks import Alone
from loopwright.precision import Precision
from loopwright.protocols import Accelerator, Ranks


class Single:
    """Trains a model in this process alone.

    `call` and `evaluate` are the module itself, so that a forward needs no additional function call.

    Args:
        settings: device settings of the run, which say whether the model is compiled and converted to channels_last.
    """

    is_sharded = False

    def __init__(self, settings: Device | None = None) -> None:
        self._settings = Device() if settings is None else settings
        self.is_compile_pending = self._settings.compiling is not None
        self._model: nn.Module | None = None
        self._words: Tensor | None = None

    @property
    def ranks(self) -> Ranks:
        """The `Ranks` of a run in one process."""
        return Alone()

    @property
    def call(self) -> Callable[..., Any]:
        """The forward in training, which is the model itself.

        Raises:
            RuntimeError: if `set_up` was not called.
        """
        if self._model is None:
            raise RuntimeError("There is no model; call set_up first.")
        return self._model

    @property
    def evaluate(self) -> Callable[..., Any]:
        """The forward in validation, which is the model itself."""
        return self.call

    @property
    def recorded(self) -> dict[str, object]:
        """The settings that change results by rounding. A resume with other values is refused."""
        settings, compiling = self._settings, self._settings.compiling
        blocks = "" if settings.blocks is None else f", blocks={'+'.join(settings.blocks)}"
        return {
            "device.compile": "null" if compiling is None else f"{compiling}{blocks}",
            "device.matmul": settings.matmul or "null",
            "device.channels_last": settings.channels_last,
        }

    def set_up(self, model: nn.Module, device: Accelerator, precision: Precision) -> None:
        """Move the model to the device, in place, with the dtype of ``precision``. Compile it if the settings say so.

        Raises:
            SettingError: if the model or its blocks cannot be compiled on this machine.
        """
        settings, compiling = self._settings, self._settings.compiling
        self._model = model.to(device.torch_device, precision.model_dtype)
        if settings.channels_last:
            convert_weights(model)
        if compiling is not None:
            check_compiler(compiling, device.torch_device.type)
            compile_model(model, compiling, settings.blocks)

    def computing(self) -> AbstractContextManager[None]:
        """Return a context in which float32 matrix multiplications have the precision of the settings."""
        matmul = self._settings.matmul
        return nullcontext() if matmul is None else matmul_precision(matmul)

    def synchronised(self, is_on: bool) -> AbstractContextManager[None]:
        """Return an empty context, as one process has nothing to synchronise."""
        return nullcontext()

    def backward(self, total: Tensor | None, word: Tensor) -> None:
        """Run the backward of ``total``, and add ``word`` to the sum that `agreed` returns."""
        if total is not None:
            total.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self._words = word.clone() if self._words is None else self._words + word

    def agreed(self) -> Tensor:
        """Return the sum of every ``word`` that was passed to `backward` since the last call of this method.

        Raises:
            RuntimeError: if `backward` was not called since the last call.
        """
        words, self._words = self._words, None
        if words is None:
            raise RuntimeError("There is no sum; call backward first.")
        return words

    def equalise_buffers(self) -> None:
        """Do nothing, as there is one process."""

    def whole(self, tensor: Tensor) -> Tensor:
        """Return the tensor on the CPU."""
        return tensor.detach().cpu()
