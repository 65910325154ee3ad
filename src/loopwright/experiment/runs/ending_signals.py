"""Handlers for signals that arrive outside a fit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Raise ``SystemExit(143)`` in the main thread on SIGTERM and SIGUSR1, so that the end of the run is recorded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process_id = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process_id:  # not in a data worker that was forked while the handler was set
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
