"""`process_settings`: sets torch's number of threads and determinism during a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopwright.device import deterministic_operations, deterministic_workspace


@contextmanager
def process_settings(num_threads: int, *, deterministic: bool) -> Iterator[None]:
    """Set the number of threads and the determinism while the context is open. Restore the earlier settings afterwards.

    Args:
        num_threads: number of threads for CPU operations.
        deterministic: whether a call of an operation without a deterministic implementation raises an error.

    Raises:
        SettingError: if ``deterministic`` is True and an operation without a deterministic implementation is called.
            The message names the operation. Also if ``deterministic`` is True and the environment variable
            ``CUBLAS_WORKSPACE_CONFIG`` has a value that is not deterministic.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with deterministic_workspace(is_needed=deterministic), deterministic_operations(deterministic):
            yield
    finally:
        torch.set_num_threads(threads_before)
