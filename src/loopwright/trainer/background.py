"""`BackgroundTask`: a function that runs in a thread during a fit."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackgroundTask:
    """Runs a function in a daemon thread. The process can exit before the thread has ended.

    Args:
        act: function to run.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._error: BaseException | None = None
        self._is_done = threading.Event()
        threading.Thread(target=self._run, name="loopwright-save", daemon=True).start()

    def wait(self) -> BaseException | None:
        """Wait until the function has ended. Return the exception that the function raised, or None.

        If a signal handler raises an exception during the wait, `wait` can be called again.
        """
        # If a signal interrupts Thread.join, Python marks the running thread as ended (python/cpython#90882).
        self._is_done.wait()
        return self._error

    def _run(self) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001  (`wait` returns the exception)
            self._error = error
        finally:
            self._is_done.set()
