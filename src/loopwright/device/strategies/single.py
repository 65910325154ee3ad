"""`Single`: the strategy that trains the whole model in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from loopwright.device.device import Device
from loopwright.device.ranks import Alone
from loopwright.device.strategies.placing import computing, place, recorded_settings
from loopwright.precision import Precision
from loopwright.protocols import Accelerator, Ranks


class Single:
    """Trains a model in one process.

    `call` and `evaluate` are the module itself, so that a forward needs no additional function call.

    Args:
        settings: device settings of the run; None selects the defaults.
    """

    is_sharded = False

    def __init__(self, settings: Device | None = None) -> None:
        self._settings = Device() if settings is None else settings
        self.splits_on_oom = self._settings.on_oom == "split"
        self.is_compile_pending = self._settings.compiling is not None
        self._model: nn.Module | None = None

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
        """The settings that affect the rounding of results. A resume with other values is refused."""
        return recorded_settings(self._settings)

    def set_up(self, model: nn.Module, device: Accelerator, precision: Precision) -> None:
        """Move the model to the device, in place, with the dtype of ``precision``. Compile it if ``compile`` is set.

        Raises:
            SettingError: if the model or its blocks cannot be compiled on this machine.
        """
        self._model = place(model, self._settings, device, precision)

    def computing(self) -> AbstractContextManager[None]:
        """Return a context in which float32 matrix multiplications have the precision ``matmul`` of the settings."""
        return computing(self._settings)

    def begin_window(self) -> None:
        """Do nothing, because there is one process."""

    def synchronised(self, is_on: bool) -> AbstractContextManager[None]:
        """Return a context without effect, because there is one process."""
        return nullcontext()

    def take_part(self, loss: Tensor | None) -> None:
        """Do nothing, because there are no other processes."""

    def equalise_buffers(self) -> None:
        """Do nothing, because there is one process."""

    def whole(self, tensor: Tensor) -> Tensor:
        """Return the tensor on the CPU."""
        return tensor.detach().cpu()

    def join(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """Return ``rows``, because the model is not sharded."""
        return rows
