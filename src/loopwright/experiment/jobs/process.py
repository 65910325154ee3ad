"""Settings of the process during a run: the number of threads, and determinism."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopwright.device import deterministic_operations, deterministic_workspace


@contextmanager
def process_settings(num_threads: int, *, deterministic: bool) -> Iterator[None]:
    """Apply the number of threads and determinism while the context is open, then restore the earlier settings.

    Args:
        num_threads: number of threads for operations on the CPU.
        deterministic: whether an operation without a deterministic form is an error.

    Raises:
        SettingError: if the body calls an operation without a deterministic form; the message names the operation.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with deterministic_workspace(is_needed=deterministic), deterministic_operations(deterministic):
            yield
    finally:
        torch.set_num_threads(threads_before)
