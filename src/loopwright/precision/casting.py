"""The casting context of a forward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch


def forward_context(device_type: str, dtype: torch.dtype | None) -> Callable[[], AbstractContextManager[object]] | None:
    """Return what makes the context of one forward: `torch.autocast` to ``dtype``.

    The context is left before the backward. Autocast keeps cast weights for as long as its outermost context is open,
    so a context around an update would compute with old weights.

    Args:
        device_type: type of the device, as torch names it.
        dtype: the type to cast to; None: nothing is cast, and no context is needed.

    Returns:
        A function that makes a new context; None if none is needed.
    """
    return None if dtype is None else partial(torch.autocast, device_type, dtype=dtype)
