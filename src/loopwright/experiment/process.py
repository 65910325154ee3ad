"""Settings of the whole process that a run depends on, applied while it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def process_settings(num_threads: int, *, deterministic: bool) -> Iterator[None]:
    """Apply the number of threads and determinism, and give back what was set before.

    Args:
        num_threads: threads of the CPU's operations.
        deterministic: whether an operation without a deterministic form is an error.
    """
    threads_before = torch.get_num_threads()
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    workspace_before = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(deterministic)
    if deterministic and workspace_before is None:
        # cuBLAS reads it when it starts, which is after this.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(deterministic_before)
        if workspace_before is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
