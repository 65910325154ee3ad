"""Settings and fixtures of all tests: number of examples, threads, signals, CPU time, a count of workers."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

FAST_TIER_MINUTES = 8  # of CPU time, for `make test`

# Examples have no deadline, because the cores that tests run on are shared.
settings.register_profile("all", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=20)

# One thread for each process: threads that wait for a core cost CPU time. Torch reads this once, when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# If a shell starts the tests in the background, they and their child processes would ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def is_fast_tier(config: pytest.Config) -> bool:
    """Whether the tests marked slow are left out, as by `make test`."""
    return bool(config.option.markexpr == "not slow")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the number of examples of each law."""
    settings.load_profile("fast" if is_fast_tier(config) else "all")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Print the CPU time of this process and of the processes that it has waited for, such as xdist processes."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:  # there is none in a process of xdist
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        minutes = sum(each.ru_utime + each.ru_stime for each in used) / 60
        budget = f" (budget {FAST_TIER_MINUTES})" if is_fast_tier(session.config) else ""
        reporter.write_line(f"CPU time: {minutes:.1f} min{budget}")


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
