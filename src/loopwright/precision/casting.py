"""The casting context of a forward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch


def forward_context(device_type: str, dtype: torch.dtype | None) -> Callable[[], AbstractContextManager[object]] | None:
    """Return a function that makes the context of one forward: `torch.autocast` to ``dtype``.

    The context must end before the backward. Autocast caches cast weights until its outermost context ends, so a
    context around several updates would compute with old weights.

    Args:
        device_type: type of the device, as torch names it.
        dtype: type to cast to; None: nothing is cast.

    Returns:
        A function that makes a new context; None if nothing is cast.
    """
    return None if dtype is None else partial(torch.autocast, device_type, dtype=dtype)
