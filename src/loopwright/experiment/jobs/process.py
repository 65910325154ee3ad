"""Settings of the whole process that a run depends on, applied while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopwright.device import deterministic_operations, deterministic_workspace


@contextmanager
def process_settings(num_threads: int, *, deterministic: bool) -> Iterator[None]:
    """Apply the number of threads and determinism, and give back what was set before.

    Args:
        num_threads: threads of the CPU's operations.
        deterministic: whether an operation without a deterministic form is an error.

    Raises:
        SettingError: naming such an operation.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with deterministic_workspace(is_needed=deterministic), deterministic_operations(deterministic):
            yield
    finally:
        torch.set_num_threads(threads_before)
