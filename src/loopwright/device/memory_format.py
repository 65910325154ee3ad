"""Functions that convert tensors to channels_last, a memory format in which the channels of a pixel are contiguous."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

MEMORY_FORMAT = torch.channels_last


def has_format(tensor: Tensor) -> bool:
    """Return whether ``channels_last`` applies to a tensor. It applies to 4-D floating-point tensors."""
    return tensor.is_floating_point() and tensor.ndim == 4


def with_channels_last(value: Any) -> Any:
    """Convert a 4-D floating-point tensor to channels_last, and return any other value unchanged."""
    is_converted = isinstance(value, Tensor) and has_format(value)
    return value.contiguous(memory_format=MEMORY_FORMAT) if is_converted else value


def convert_weights(model: nn.Module) -> None:
    """Convert the 4-D floating-point parameters and buffers of a model to channels_last, in place.

    Lazy parameters have no shape yet and are not converted.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if not is_lazy(tensor):
            tensor.data = with_channels_last(tensor.data)
