"""`Sharded`: the strategy that stores a part of each weight in each process, with `torch.distributed.fsdp`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parameter import is_lazy

from loopwright.device.blocks import search_blocks
from loopwright.device.device import Device
from loopwright.device.strategies.placing import computing, copy_from_first, place, recorded_settings
from loopwright.errors import DataError, SettingError
from loopwright.precision import Precision
from loopwright.protocols import Accelerator, Ranks
from loopwright.sharded_tensors import whole_tensor

# Methods other than the forward that compute with the weights. Each of them must gather the weights first.
_METHODS = ("predict", "logits", "begin", "go_on", "generate")
_USE_DDP = "use device.strategy=ddp"


class Sharded:
    """Stores some rows of each parameter, of its gradient and of its optimizer state in each process.

    `set_up` calls ``fully_shard`` of torch for each repeated block of the model, and for the rest of the model. Each
    forward and backward gathers the weights of one block at a time, so every process must make the same forwards. The
    model stays the same object, and its parameters keep their names.

    A backward in `synchronised` averages the gradients over the processes, as `Replicated` does.

    Args:
        settings: device settings of the run.
        ranks: processes that train the model.
    """

    is_sharded = True
    splits_on_oom = False

    def __init__(self, settings: Device, ranks: Ranks) -> None:
        self._settings = settings
        self.ranks = ranks
        self.is_compile_pending = settings.compiling is not None
        self._model: nn.Module | None = None
        self._mesh: DeviceMesh | None = None
        self._parts: list[FSDPModule] = []

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
        """The forward in validation. It frees the gathered weights, as no backward does."""
        return self._evaluate

    @property
    def recorded(self) -> dict[str, object]:
        """The settings that change results by rounding. A resume with other values is refused."""
        return recorded_settings(self._settings)

    def set_up(self, model: nn.Module, device: Accelerator, precision: Precision) -> None:
        """Move the model to the device, and shard it in place. Every process gets the weights of process 0.

        Raises:
            SettingError: if the model cannot be compiled on this machine, or cannot be sharded.
        """
        _refuse_unsharded(model)
        self._model = place(model, self._settings, device, precision)
        for tensors in (
            [each] for each in model.parameters()
        ):  # one at a time: together they would need twice the memory
            copy_from_first(tensors, self.ranks.rank)
        self.equalise_buffers()
        self._mesh = init_device_mesh(device.torch_device.type, (self.ranks.world_size,))
        blocks = {id(block) for block in search_blocks(model, self._settings.blocks)} - {id(model)}
        # A module comes before the modules in it, and `fully_shard` needs the inner modules first.
        chosen = [module for module in reversed(list(model.modules())) if id(module) in blocks]
        # With None, torch keeps the weights that are outside the blocks until the backward, which needs them first.
        reshard = None if self._settings.reshard else False
        for module in (*chosen, model):
            name = type(module).__name__
            fully_shard(module, mesh=self._mesh, reshard_after_forward=reshard)
            type(module).__name__ = name  # torch has replaced the class by a subclass FSDP<name>, which messages show
        self._parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for part in self._parts:
            part.set_force_sum_reduction_for_comms(True)  # gloo has no mean; torch divides the sum afterwards
        for name in _METHODS:
            if callable(getattr(model, name, None)):
                register_fsdp_forward_method(model, name)

    def computing(self) -> AbstractContextManager[None]:
        """Return a context in which float32 matrix multiplications have the precision of the settings."""
        return computing(self._settings)

    def begin_window(self) -> None:
        """Copy the buffers from process 0, so that saves and validations, which copy them too, change nothing."""
        self.equalise_buffers()

    @contextmanager
    def synchronised(self, is_on: bool) -> Iterator[None]:
        """Return a context for forwards and their backwards. If ``is_on``, gradients are averaged over the processes.

        The gradients of backwards in a context that is off are included in the next average.
        """
        self._synchronise(is_on)
        try:
            yield
        finally:
            self._synchronise(True)

    def take_part(self, loss: Tensor | None) -> None:
        """Run a backward that adds no gradient, so that the other processes can gather weights and sum gradients.

        Args:
            loss: loss of this micro-batch, which has no items.

        Raises:
            DataError: if ``loss`` is None, because this process has read no batch yet.
            RuntimeError: if ``loss`` is not finite, because its gradient is not zero even if it is multiplied by 0.
        """
        if loss is None:
            problem = f"Process {self.ranks.rank} has read no batch, so it cannot make the forwards of the others"
            raise DataError(f"{problem}; expected a batch for each process with device.strategy=fsdp; {_USE_DDP}.")
        if not bool(loss.isfinite()):
            problem = f"The loss of a micro-batch without items is {float(loss.detach())}"
            remedy = "divide the loss by the larger of num_items and 1"
            raise RuntimeError(f"{problem}; expected a finite number with device.strategy=fsdp; {remedy}.")
        total = loss * 0
        total.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it

    def equalise_buffers(self) -> None:
        """Copy the model's buffers from process 0 to every process."""
        if self._model is not None:
            copy_from_first(self._model.buffers(), self.ranks.rank)

    def whole(self, tensor: Tensor) -> Tensor | None:
        """Return the whole tensor on the CPU in process 0, and None in the other processes.

        Every process must call this method.
        """
        found = whole_tensor(tensor.detach())
        return None if self.ranks.rank else found.cpu()

    def join(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """Return a sharded tensor of the given shape. ``rows`` are the rows that this process stores."""
        assert self._mesh is not None, "set_up comes first"
        size = torch.Size(shape)
        stride = torch.empty(size, device="meta").stride()
        joined: Tensor = DTensor.from_local(
            rows.to(self._mesh.device_type), self._mesh, [Shard(0)], run_check=False, shape=size, stride=stride
        )
        return joined

    def _evaluate(self, *args: Any, **kwargs: Any) -> Any:
        assert self._model is not None, "set_up comes first"
        try:
            return self._model(*args, **kwargs)
        finally:
            for part in self._parts:
                part.reshard()

    def _synchronise(self, is_on: bool) -> None:
        assert isinstance(self._model, FSDPModule), "set_up comes first"
        self._model.set_requires_gradient_sync(is_on)
        self._model.set_is_last_backward(is_on)


def _refuse_unsharded(model: nn.Module) -> None:
    """Refuse parameters that torch cannot shard.

    Raises:
        SettingError: with the name of the parameter.
    """
    for name, parameter in model.named_parameters():
        problem = ""
        if is_lazy(parameter):
            problem = "belongs to a lazy layer, and has no shape yet"
        elif not parameter.ndim:
            problem = "is a scalar, and has no rows"
        elif parameter.is_complex():
            problem = "is complex"
        elif not parameter.is_contiguous():
            problem = "is not contiguous in memory"
        if problem:
            raise SettingError("device.strategy", f"=fsdp: the parameter {name} {problem}; {_USE_DDP}.")
