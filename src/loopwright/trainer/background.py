"""`BackgroundTask`: something that is done beside a fit."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackgroundTask:
    """Runs a function in a thread of its own, which the end of the process does not wait for.

    Args:
        act: what is done.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._error: BaseException | None = None
        self._is_done = threading.Event()
        threading.Thread(target=self._run, name="loopwright-save", daemon=True).start()

    def wait(self) -> BaseException | None:
        """Wait until it is done; what it raised, if anything. Where a signal ends the waiting, one may wait again."""
        self._is_done.wait()  # a signal that ends `Thread.join` makes the thread pass for dead (python/cpython#90882)
        return self._error

    def _run(self) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001  (whoever waits for it raises it again)
            self._error = error
        finally:
            self._is_done.set()
