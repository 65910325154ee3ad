"""What all tests share: laws without a deadline, a core for each process, signals that arrive, workers counted."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable

import pytest
from hypothesis import settings

# No deadline for one example, because the cores that tests run on are shared.
settings.register_profile("shared_cores", deadline=None)
settings.load_profile("shared_cores")

# Processes of tests side by side, each with a thread for every core, would wait for one another. Torch reads this once.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Begun in the background of a shell, the tests would ignore Ctrl-C, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def num_workers_left() -> Callable[..., int]:
    """Count the worker processes that the test has started and that are still alive.

    With ``is_collected=True`` the garbage collector runs first: an error in a reference cycle keeps its frames, and so
    the dataloader. With ``within_seconds`` the count is taken when it is 0, or after that time.
    """
    before = set(multiprocessing.active_children())

    def count(*, is_collected: bool = False, within_seconds: float = 0.0) -> int:
        if is_collected and set(multiprocessing.active_children()) - before:
            gc.collect()
        deadline = time.monotonic() + within_seconds
        while (left := set(multiprocessing.active_children()) - before) and time.monotonic() < deadline:
            time.sleep(0.05)
        return len(left)

    return count
