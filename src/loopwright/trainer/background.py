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
        self._thread = threading.Thread(target=self._run, name="loopwright-save", daemon=True)
        self._thread.start()

    def wait(self) -> BaseException | None:
        """Wait until it is done; what it raised, if anything."""
        self._thread.join()
        return self._error

    def _run(self) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001  (whoever waits for it raises it again)
            self._error = error
