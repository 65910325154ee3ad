"""`Replicated`: the strategy that trains a copy of the model in each process, with `DistributedDataParallel`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from loopwright.device.device import Device
from loopwright.device.strategies.placing import computing, place, recorded_settings
from loopwright.precision import Precision
from loopwright.protocols import Accelerator, Ranks

# Before version 2.13, torch has another name for the argument that turns off the broadcast of buffers.
_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)
_UNUSED = "Expected to have finished reduction in the prior iteration"


class Replicated:
    """Trains a copy of the model in each process.

    A backward in `synchronised` averages the gradients over the processes. The wrapper around the model is private, so
    that names of parameters, hooks and checkpoints are those of the model itself.

    The wrapper is built before the first step. It is built again if the set of trained parameters has changed.

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
        """The forward in training."""
        return self._forward

    @property
    def evaluate(self) -> Callable[..., Any]:
        """The forward in validation, which is the model itself, so that the processes do not communicate.

        Raises:
            RuntimeError: if `set_up` was not called.
        """
        if self._model is None:
            raise RuntimeError("There is no model; call set_up first.")
        return self._model

    @property
    def recorded(self) -> dict[str, object]:
        """The settings that change results by rounding. A resume with other values is refused."""
        return recorded_settings(self._settings)

    def set_up(self, model: nn.Module, device: Accelerator, precision: Precision) -> None:
        """Move the model to the device, in place, with the dtype of ``precision``. Compile it if the settings say so.

        Raises:
            SettingError: if the model or its blocks cannot be compiled on this machine.
        """
        self._model = place(model, self._settings, device, precision)
        self._device = device.torch_device

    def computing(self) -> AbstractContextManager[None]:
        """Return a context in which float32 matrix multiplications have the precision of the settings."""
        return computing(self._settings)

    def begin_window(self) -> None:
        """Let the next forward prepare a window, after the hooks that may change which parameters are trained."""
        self._is_new_window = True

    @contextmanager
    def synchronised(self, is_on: bool) -> Iterator[None]:
        """Return a context for forwards and their backwards. If ``is_on``, gradients are averaged over the processes.

        The gradients of backwards in a context that is off are included in the next average.
        """
        before, self._is_on = self._is_on, is_on
        try:
            yield
        finally:
            self._is_on = before

    def take_part(self, loss: Tensor | None) -> None:
        """Average the gradients with the other processes, if this is done in this micro-batch.

        Args:
            loss: not used; None: there was no forward in this micro-batch.
        """
        if self._is_on:
            self._forward(None).backward()
        elif self._is_new_window:
            self._prepared()

    def equalise_buffers(self) -> None:
        """Copy the model's buffers from process 0 to every process.

        Buffers of one dtype are sent together. With 60 small buffers, as in a model with 20 batch normalisations, this
        takes 0.4 ms of CPU time, and one message for each buffer takes 4 to 7 ms.
        """
        by_type: dict[object, list[Tensor]] = {}
        for buffer in () if self._model is None else self._model.buffers():
            by_type.setdefault((buffer.dtype, buffer.device), []).append(buffer.detach())
        for buffers in by_type.values():
            sent = torch.cat([each.reshape(-1) for each in buffers])
            dist.broadcast(sent, src=0)
            if self.ranks.rank:
                parts = torch.split(sent, [each.numel() for each in buffers])
                torch._foreach_copy_(buffers, [part.view_as(each) for part, each in zip(parts, buffers, strict=True)])

    def whole(self, tensor: Tensor) -> Tensor | None:
        """Return the tensor on the CPU in process 0, and None in the other processes."""
        return None if self.ranks.rank else tensor.detach().cpu()

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        wrapped = self._prepared() if self._is_new_window or self._wrapped is None else self._wrapped
        try:
            with nullcontext() if self._is_on else wrapped.no_sync():  # torch looks at this in the forward alone
                return wrapped(*args, **kwargs)
        except RuntimeError as error:
            if _UNUSED not in str(error):
                raise
            problem = "A parameter of the model got no gradient in the last step, so the processes cannot average it"
            raise RuntimeError(f"{problem}: use device.unused_parameters=true.") from error

    def _prepared(self) -> DistributedDataParallel:
        """Return the wrapper, which is built again if the trained parameters have changed. Copy the buffers.

        A save or a validation also copies the buffers. They are therefore copied in every window, so that saves and
        validations do not change the training.

        Raises:
            RuntimeError: if the model has no trained parameter.
        """
        assert self._model is not None, "set_up comes first"
        self._is_new_window = False
        trained = [each for each in self._model.parameters() if each.requires_grad]
        if self._wrapped is None or list(map(id, trained)) != list(map(id, self._trained)):
            if not trained:
                raise RuntimeError("The model has no parameter with requires_grad, so it cannot be trained.")
            self._trained, self._wrapped = trained, None  # the old wrapper must be gone before the new one is built
            options: dict[str, Any] = {_SYNC_BUFFERS: False}
            if self._device.type != "cpu":
                options["device_ids"] = [self._device.index]
            unused = self._settings.unused_parameters
            self._wrapped = DistributedDataParallel(_Callee(self._model), find_unused_parameters=unused, **options)
            _fix_order(self._wrapped, trained)
        self.equalise_buffers()
        return self._wrapped


def _fix_order(wrapped: DistributedDataParallel, trained: Sequence[nn.Parameter]) -> None:
    """Let the wrapper choose the order in which it sums the gradients now.

    Otherwise it would choose another order after its first step. A resumed run would then sum its first gradients in
    another order than a run that was not interrupted, and the results would differ by rounding.
    """
    wrapped(None).backward()
    with wrapped.no_sync():
        wrapped(None)
    for parameter in trained:
        parameter.grad = None


class _Callee(nn.Module):
    """The module that `DistributedDataParallel` wraps.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model. Without a batch, return a zero whose gradient is zero for each trained parameter."""
        if args and args[0] is None and len(args) == 1:
            zeros = [each.reshape(-1)[:0].sum() for each in self.model.parameters() if each.requires_grad]
            return torch.stack([each.float() for each in zeros]).sum()
        return self.model(*args, **kwargs)
