"""`matmul_precision`: sets torch's precision of float32 matrix multiplications during a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

MATMUL = ("highest", "high", "medium")


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set the precision of float32 matrix multiplications during the context, and then restore the previous precision.

    Args:
        precision: "highest", "high" or "medium"; see `torch.set_float32_matmul_precision`.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
