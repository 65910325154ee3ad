"""`StopSignals`: a signal ends a fit after its step; a second one ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any, Self

from loopwright.engine.stopping import Stopping

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """While its block lasts, SIGINT, SIGTERM and SIGUSR1 interrupt a fit.

    The first one is noted, and the engine sees it at the end of the step; a second one raises where the program
    stands, and again at the next micro-batch or save, as Python drops what is raised while an object is finalized; one
    after that is left to the system, for a program that is stuck. Only the main thread can be told of
    signals, and a signal that is ignored, as SIGINT is under ``nohup``, stays so. Processes forked meanwhile, such as
    the workers of a dataloader, do not take it for theirs.

    Args:
        stopping: of the run.
        is_saved: whether a fit that is interrupted is saved, which is said.
    """

    def __init__(self, stopping: Stopping, *, is_saved: bool) -> None:
        self._stopping = stopping
        self._is_saved = is_saved
        self._process_id = os.getpid()
        self._before: dict[signal.Signals, Any] = {}
        self._num_received = 0
        self.received: signal.Signals | None = None

    def __enter__(self) -> Self:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                handler = signal.getsignal(number)
                if handler is not None and handler is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._stopping.exit = None

    def end(self) -> BaseException | None:
        """What a fit that a signal interrupted raises once it is saved; None where none came."""
        return None if self.received is None else _exit_for(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process_id:
            return
        self._num_received += 1
        received = signal.Signals(number)
        if self._num_received == 1:
            self.received = received
            self._stopping.ask(received.name, is_interruption=True)
            # Printed past Python's streams, whose locks whatever was interrupted here may hold.
            saved = " and saved" if self._is_saved else ""
            text = f"\n{received.name}: the step is finished{saved}, then the run ends; once more: at once.\n"
            _write(2, text.encode())
            return
        signal.signal(number, signal.SIG_DFL)
        self._stopping.exit = _exit_for(received)
        raise self._stopping.exit


def _exit_for(received: signal.Signals) -> BaseException:
    return KeyboardInterrupt() if received == signal.SIGINT else SystemExit(128 + signal.SIGTERM)


def _write(descriptor: int, text: bytes) -> None:
    with contextlib.suppress(OSError):  # closed: nobody reads along
        os.write(descriptor, text)
