"""Functions that cast the computations of a forward, or the tensors of a batch, to another floating-point dtype."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor


def forward_context(device_type: str, dtype: torch.dtype | None) -> Callable[[], AbstractContextManager[object]] | None:
    """Return a function that creates a `torch.autocast` context for one forward.

    The context must end before the backward. Autocast caches the cast weights until the outermost autocast context
    ends. If a context were still open during an update, the next forward would use the old weights.

    Args:
        device_type: type of the device in torch, such as "cuda".
        dtype: dtype to which operations are cast; None: nothing is cast.

    Returns:
        A function that creates a new context; None if nothing is cast.
    """
    return None if dtype is None else partial(torch.autocast, device_type, dtype=dtype)


def with_cast_inputs(call: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    """Return a function that casts the floating-point tensors in its arguments to ``dtype`` and calls ``call``."""

    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    def call_with_cast(*args: Any, **kwargs: Any) -> Any:
        return call(*map_tensors(args, cast), **map_tensors(kwargs, cast))

    return call_with_cast


def map_tensors(batch: Any, convert: Callable[[Any], Any]) -> Any:
    """Return a copy of ``batch`` in which each tensor is replaced by ``convert(tensor)``.

    Tensors in nested mappings, lists, tuples and dataclasses are also replaced. Other objects with a method ``to``,
    such as a `PackedSequence`, are also passed to ``convert``. All other objects are not changed.
    """
    if isinstance(batch, Tensor) or hasattr(batch, "to"):
        return convert(batch)
    if isinstance(batch, dict):
        mapped = copy.copy(batch)
        mapped.update({key: map_tensors(value, convert) for key, value in batch.items()})
        return mapped
    if isinstance(batch, Mapping):
        return {key: map_tensors(value, convert) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(value, convert) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map_tensors(value, convert) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch) if field.init}
        return dataclasses.replace(batch, **{name: map_tensors(value, convert) for name, value in values.items()})
    return batch
