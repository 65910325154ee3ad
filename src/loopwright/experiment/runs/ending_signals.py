"""`ending_on_signals`: ends a run when a signal arrives before or after the fit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """While the context is open, raise ``SystemExit(143)`` on SIGTERM and SIGUSR1, so that the run's end is recorded.

    Outside the main thread, the context has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process_id = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process_id:  # False in a dataloader worker process that inherited this handler
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
