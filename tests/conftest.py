"""What all tests share: laws without a deadline, a core for each process, signals that arrive, workers counted."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
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
    """Counts the worker processes begun in the test: those of tests before may wait for the garbage collector.

    ``is_collected=True`` has it come first: an error that goes in circles, as torch's do, keeps its frames and so the
    dataloader.
    """
    before = set(multiprocessing.active_children())

    def count(*, is_collected: bool = False) -> int:
        if is_collected and set(multiprocessing.active_children()) - before:
            gc.collect()
        return len(set(multiprocessing.active_children()) - before)

    return count
