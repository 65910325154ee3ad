"""`model_lines`, which describes the model, the device and the precision of a trainer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from loopwright.precision import Precision
from loopwright.protocols import Accelerator

_PRECISIONS = {
    "bf16": "operations of a forward in bfloat16, weights and updates in float32",
    "fp16": "operations of a forward in float16 with a scaled loss, weights and updates in float32",
    "bf16_pure": "everything in bfloat16; changes below 1/256 of a weight are lost",
}


def model_lines(
    model: nn.Module, optimizer: Optimizer | None, device: Accelerator, precision: Precision | None = None
) -> str:
    """Return one line about the model, and one line about the device.

    The first line contains the class of the model and its number of parameters. A parameter is counted as trained if
    it is in the optimizer and requires a gradient. A tied parameter is counted once. If ``precision`` is not float32, a
    third line describes the precision.
    """
    parameters = list(model.parameters())
    if any(is_lazy(parameter) for parameter in parameters):
        size = "parameters without a shape before the first batch"
    else:
        groups = [] if optimizer is None else optimizer.param_groups
        updated = {id(parameter) for group in groups for parameter in group["params"]}
        trained = [parameter for parameter in parameters if parameter.requires_grad and id(parameter) in updated]
        counts = [sum(parameter.numel() for parameter in each) for each in (parameters, trained)]
        size = f"{counts[0]:,} parameter{'' if counts[0] == 1 else 's'} ({counts[1]:,} trained)"
    lines = [f"Model: {type(model).__name__}, {size}", f"Device: {device.name}"]
    if precision is not None and precision.dtype in _PRECISIONS:
        lines.append(f"Precision: {precision.dtype}, {_PRECISIONS[precision.dtype]}{_slowness(device.torch_device)}")
    return "\n".join(lines)


def _slowness(device: torch.device) -> str:
    """Return a warning for a CPU on which 16-bit floats are slower than float32; otherwise an empty string."""
    is_slow = device.type == "cpu" and "AVX512" not in torch.backends.cpu.get_cpu_capability()
    return "; on this CPU it is slower than float32" if is_slow else ""
