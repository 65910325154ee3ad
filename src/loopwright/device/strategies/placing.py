"""Functions that strategies share: they place a model, record settings, and set the precision of matrix products."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn

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
