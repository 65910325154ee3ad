"""`forward_context`, which casts the computations of a forward to another floating-point dtype."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch


def forward_context(device_type: str, dtype: torch.dtype | None) -> Callable[[], AbstractContextManager[object]] | None:
    """Return a function that creates a `torch.autocast` context to ``dtype`` for one forward.

    The context must end before the backward. Autocast caches the cast weights until the outermost autocast context
    ends. If a context stayed open during an update, the next forward would use the old weights.

    Args:
        device_type: type of the device in torch, such as "cuda".
        dtype: dtype to cast to; None: nothing is cast.

    Returns:
        A function that creates a new context; None if nothing is cast.
    """
    return None if dtype is None else partial(torch.autocast, device_type, dtype=dtype)
