"""`StopSignals`, which handles SIGINT, SIGTERM and SIGUSR1 during a fit."""

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
    """A context in which SIGINT, SIGTERM and SIGUSR1 interrupt a fit.

    - The first signal requests a stop. The engine stops the fit at the end of the step.
    - The second signal raises an exception immediately. Python drops an exception that is raised while an object is
      finalized, so the engine raises the exception again before the next micro-batch or the last save.
    - The second signal also restores the default action of the operating system for this signal. If the signal arrives
      again, the operating system ends the process, even if Python does not respond.

    Python calls signal handlers only in the main thread, so the context has no effect in other threads. A signal that
    is ignored before the fit, such as SIGINT in a background job of a shell script, stays ignored. Forked processes,
    such as the workers of a dataloader, inherit the handler. In a forked process, the handler returns immediately.

    Args:
        stopping: object that receives the request to stop.
        is_saved: whether an interrupted fit saves a checkpoint. If so, the message at the first signal says so.
        is_quiet: whether this message is left out, because another process prints it.
    """

    def __init__(self, stopping: Stopping, *, is_saved: bool, is_quiet: bool = False) -> None:
        self._stopping = stopping
        self._is_quiet = is_quiet
        self._is_saved = is_saved
        self._process_id = os.getpid()
        self._before: dict[signal.Signals, Any] = {}
        self._num_received = 0
        self.received: signal.Signals | None = None

    def __enter__(self) -> Self:
        """Install the handler."""
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                handler = signal.getsignal(number)
                if handler is not None and handler is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the signal handlers from before the context."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._stopping.exit = None

    def end(self) -> BaseException | None:
        """Return the exception that an interrupted fit raises at its end; None if no signal was received."""
        return None if self.received is None else _exit_for(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process_id:
            return
        self._num_received += 1
        received = signal.Signals(number)
        if self._num_received == 1:
            self.received = received
            self._stopping.ask(received.name, is_interruption=True)
            again = " Press Ctrl-C again to stop at once." if received == signal.SIGINT else ""
            # `print` is not used, because the interrupted code may hold the lock of sys.stderr.
            saving = ", and saving" if self._is_saved else ""
            text = f"\nStopping after this step{saving}.{again}\n"
            if not self._is_quiet:
                _write(2, text.encode())
            return
        signal.signal(number, signal.SIG_DFL)
        self._stopping.exit = _exit_for(received)
        raise self._stopping.exit


def _exit_for(received: signal.Signals) -> BaseException:
    return KeyboardInterrupt() if received == signal.SIGINT else SystemExit(128 + signal.SIGTERM)


def _write(descriptor: int, text: bytes) -> None:
    with contextlib.suppress(OSError):  # standard error may be closed
        os.write(descriptor, text)
