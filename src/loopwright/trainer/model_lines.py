"""`model_lines`, which describes the model and the device of a trainer in two lines."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer


def model_lines(model: nn.Module, optimizer: Optimizer | None, device: torch.device) -> str:
    """Return the class and the number of parameters of the model, and the device, in two lines.

    A parameter of the optimizer that requires a gradient counts as trained. A tied parameter counts once.
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
    return f"Model: {type(model).__name__}, {size}\nDevice: {_device_text(device)}"


def _device_text(device: torch.device) -> str:
    if device.type != "cpu":
        return str(device)
    num_threads = torch.get_num_threads()
    return f"cpu, {num_threads} thread{'' if num_threads == 1 else 's'}"
