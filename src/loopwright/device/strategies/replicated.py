"""`Replicated`: the strategy that trains a copy of the model in each process, with `DistributedDataParallel`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from loopwright.device.device import Device
from loopwright.device.strategies.placing import computing, copy_from_first, place, recorded_settings
from loopwright.precision import Precision
from loopwright.protocols import Accelerator, Ranks

# Name of the argument that turns off the broadcast of buffers. torch 2.13 renamed this argument.
_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)
_UNUSED = "Expected to have finished reduction in the prior iteration"


class Replicated:
    """Trains a copy of the model in each process.

    A backward in the context ``synchronised(True)`` averages the gradients over the processes. Hooks and checkpoints
    get the model itself, without the wrapper `DistributedDataParallel`, so parameter names do not change.

    The wrapper is built before the first step. A new wrapper is built if the set of trained parameters has changed.

    Args:
        settings: device settings of the run.
        ranks: processes that train the model.
    """

    is_sharded = False

    def __init__(self, settings: Device, ranks: Ranks) -> None:
        self._settings = settings
        self.ranks = ranks
        self.splits_on_oom = self._settings.on_oom == "split"
        self.is_compile_pending = settings.compiling is not None
        self._model: nn.Module | None = None
        self._device = torch.device("cpu")
        self._wrapped: DistributedDataParallel | None = None
        self._trained: list[nn.Parameter] = []
        self._is_new_window = True
        self._is_on = True

    @property
    def call(self) -> Callable[..., Any]:
        """The forward in training, which calls the model through `DistributedDataParallel`."""
        return self._forward

    @property
    def evaluate(self) -> Callable[..., Any]:
        """The forward in validation. This is the model itself, because this forward needs no communication.

        Raises:
            RuntimeError: if `set_up` was not called.
        """
        if self._model is None:
            raise RuntimeError("There is no model; call set_up first.")
        return self._model

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
        self._device = device.torch_device

    def computing(self) -> AbstractContextManager[None]:
        """Return a context in which float32 matrix multiplications have the precision ``matmul`` of the settings."""
        return computing(self._settings)

    def begin_window(self) -> None:
        """Make the next forward check which parameters are trained, and copy the buffers.

        The check is not done here, because later hooks of the step may change ``requires_grad``.
        """
        self._is_new_window = True

    @contextmanager
    def synchronised(self, is_on: bool) -> Iterator[None]:
        """Return a context for forwards and their backwards. If ``is_on``, gradients are averaged over the processes.

        If ``is_on`` is False, gradients are summed in this process, and the next average includes these sums.
        """
        before, self._is_on = self._is_on, is_on
        try:
            yield
        finally:
            self._is_on = before

    def take_part(self, loss: Tensor | None) -> None:
        """Average the gradients with the other processes, unless the current context is ``synchronised(False)``.

        Args:
            loss: not used by this strategy.
        """
        if self._is_on:
            self._forward(None).backward()
        elif self._is_new_window:
            self._prepared()

    def equalise_buffers(self) -> None:
        """Copy the model's buffers from process 0 to every process."""
        if self._model is not None:
            copy_from_first(self._model.buffers(), self.ranks.rank)

    def whole(self, tensor: Tensor) -> Tensor | None:
        """Return the tensor on the CPU in process 0, and None in the other processes."""
        return None if self.ranks.rank else tensor.detach().cpu()

    def join(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """Return ``rows``, because the model is not sharded."""
        return rows

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        wrapped = self._prepared() if self._is_new_window or self._wrapped is None else self._wrapped
        try:
            with nullcontext() if self._is_on else wrapped.no_sync():  # torch reads this setting only in the forward
                return wrapped(*args, **kwargs)
        except RuntimeError as error:
            if _UNUSED not in str(error):
                raise
            problem = "A parameter of the model got no gradient in the last step, so its gradient cannot be averaged"
            raise RuntimeError(f"{problem}: use device.unused_parameters=true.") from error

    def _prepared(self) -> DistributedDataParallel:
        """Return the wrapper, and copy the buffers. Build a new wrapper if the trained parameters have changed.

        Saves and validations also copy the buffers. Without a copy in every window, the steps of saves and validations
        would affect the results of the training.

        Raises:
            RuntimeError: if the model has no trained parameter.
        """
        assert self._model is not None, "set_up comes first"
        self._is_new_window = False
        trained = [each for each in self._model.parameters() if each.requires_grad]
        if self._wrapped is None or list(map(id, trained)) != list(map(id, self._trained)):
            if not trained:
                raise RuntimeError("The model has no parameter with requires_grad, so it cannot be trained.")
            self._trained, self._wrapped = trained, None  # delete the old wrapper before building a new one
            options: dict[str, Any] = {_SYNC_BUFFERS: False}
            if self._device.type != "cpu":
                options["device_ids"] = [self._device.index]
            unused = self._settings.unused_parameters
            self._wrapped = DistributedDataParallel(_Callee(self._model), find_unused_parameters=unused, **options)
            _fix_order(self._wrapped, trained)
        copy_from_first(self._model.buffers(), self.ranks.rank)
        return self._wrapped


def _fix_order(wrapped: DistributedDataParallel, trained: Sequence[nn.Parameter]) -> None:
    """Make the wrapper choose the order in which it sums gradients before its first step.

    Without this call, the wrapper would change the order after its first step. A resumed run would then sum its first
    gradients in another order than an uninterrupted run, and the results would differ by rounding.
    """
    wrapped(None).backward()
    with wrapped.no_sync():
        wrapped(None)
    for parameter in trained:
        parameter.grad = None


class _Callee(nn.Module):
    """The module that `DistributedDataParallel` wraps.

    Args:
        model: model to train.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model. If the only argument is None, return 0 with zero gradients for all trained parameters."""
        if args and args[0] is None and len(args) == 1:
            zeros = [each.reshape(-1)[:0].sum() for each in self.model.parameters() if each.requires_grad]
            return torch.stack([each.float() for each in zeros]).sum()
        return self.model(*args, **kwargs)
