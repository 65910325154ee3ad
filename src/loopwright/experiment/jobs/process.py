"""Settings of the whole process that a run depends on, applied while it runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Raise ``SystemExit(143)`` on SIGTERM and SIGUSR1, in the main thread, so that a run can say that it was ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process_id = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process_id:  # and not a worker that was forked meanwhile
            raise SystemExit(128 + signal.SIGTERM)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    replaced = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in replaced:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
