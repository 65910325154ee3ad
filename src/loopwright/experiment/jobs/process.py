"""`process_settings`, which sets torch's number of threads and determinism during a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopwright.device import deterministic_operations
from loopwright.experiment.jobs.workspace import deterministic_workspace


@contextmanager
def process_settings(num_threads: int, *, deterministic: bool) -> Iterator[None]:
    """Set torch's number of threads and determinism while the context is open. Restore the earlier settings afterwards.

    Args:
        num_threads: number of threads for CPU operations.
        deterministic: whether torch refuses operations without a deterministic implementation.

    Raises:
        SettingError: if ``deterministic`` is True, for a call of an operation without a deterministic implementation,
            and for a value of the environment variable ``CUBLAS_WORKSPACE_CONFIG`` with which cuBLAS is not
            deterministic.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with deterministic_workspace(is_needed=deterministic), deterministic_operations(deterministic):
            yield
    finally:
        torch.set_num_threads(threads_before)
