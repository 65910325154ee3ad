"""Settings of all tests: hypothesis without deadlines, one thread per process, SIGINT, and a count of workers."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable

import pytest
from hypothesis import settings

# No deadline for an example, because the tests run on shared cores.
settings.register_profile("shared_cores", deadline=None)
settings.load_profile("shared_cores")

# Parallel test processes with one thread per core would wait for each other. Torch reads this variable only once.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# If a shell starts the tests in the background, they and their child processes would ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def num_workers_left() -> Callable[..., int]:
    """Count the worker processes that this test has started; earlier tests may have left workers.

    ``is_collected=True`` runs the garbage collector first. Errors of torch contain reference cycles, which keep their
    frames and the dataloader alive.
    """
    before = set(multiprocessing.active_children())

    def count(*, is_collected: bool = False) -> int:
        if is_collected and set(multiprocessing.active_children()) - before:
            gc.collect()
        return len(set(multiprocessing.active_children()) - before)

    return count
