"""Functions that strategies share: they place a model, copy its tensors to other processes, and record settings."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn

from loopwright.device.compiling import check_compiler, compile_model
from loopwright.device.device import Device
from loopwright.device.matmul import matmul_precision
from loopwright.device.memory_format import convert_weights
from loopwright.precision import Precision
from loopwright.protocols import Accelerator


def place(model: nn.Module, settings: Device, device: Accelerator, precision: Precision) -> nn.Module:
    """Move the model to the device, in place, with the dtype of ``precision``. Compile it if ``compile`` is set.

    Returns:
        The argument ``model``.

    Raises:
        SettingError: if the model or its blocks cannot be compiled on this machine.
    """
    compiling = settings.compiling
    model = model.to(device.torch_device, precision.model_dtype)
    if settings.channels_last:
        convert_weights(model)
    if compiling is not None:
        check_compiler(compiling, device.torch_device.type)
        compile_model(model, compiling, settings.blocks)
    return model


def copy_from_first(tensors: Iterable[Tensor], rank: int) -> None:
    """Copy the tensors of process 0 to every process, in place. Every process must call this function.

    Tensors of one dtype are sent together. With 60 small tensors, such as the buffers of 20 batch normalisations, this
    takes 0.4 ms of CPU time, and one message for each tensor takes 4 to 7 ms.
    """
    by_type: dict[object, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach())
    for alike in by_type.values():
        sent = torch.cat([each.reshape(-1) for each in alike])
        dist.broadcast(sent, src=0)
        if rank:
            parts = torch.split(sent, [each.numel() for each in alike])
            torch._foreach_copy_(alike, [part.view_as(each) for part, each in zip(parts, alike, strict=True)])


def recorded_settings(settings: Device) -> dict[str, object]:
    """Return the settings that affect the rounding of results. A resume with other values is refused."""
    compiling = settings.compiling
    blocks = "" if settings.blocks is None else f", blocks={'+'.join(settings.blocks)}"
    return {
        "device.compile": "null" if compiling is None else f"{compiling}{blocks}",
        "device.matmul": settings.matmul or "null",
        "device.channels_last": settings.channels_last,
    }


def computing(settings: Device) -> AbstractContextManager[None]:
    """Return a context in which float32 matrix multiplications have the precision ``settings.matmul``."""
    return nullcontext() if settings.matmul is None else matmul_precision(settings.matmul)
