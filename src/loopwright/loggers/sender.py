"""`Sender`, a thread that sends logged values to a `Destination`, such as a database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from loopwright.errors import SaveError, on_one_line
from loopwright.loggers.backlog import Backlog, Point

MAX_BATCH = 1000  # maximum number of values in one call of `Destination.send`
END_SECONDS = 30.0  # time to send the last values of a run
_MAX_TEXT = 300  # characters of the message of another library
_log = logging.getLogger("loopwright")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended.

    Attributes:
        state: "completed", "stopped", "interrupted" or "failed".
        exit_code: exit code of the command.
        metrics: last value of each metric.
        best: name, value and step of the best value of the monitored metric; None if there is no such value.
    """

    state: str = "completed"
    exit_code: int = 0
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    best: tuple[str, float, int] | None = None


class Destination(Protocol):
    """Receiver of logged values. Its methods are called in the thread of a `Sender`."""

    def connect(self) -> Mapping[str, int]:
        """Create the run at the receiver, or open it again. Return the last step that it has stored, by name."""
        ...

    def send(self, points: Sequence[Point]) -> None:
        """Send values. When this method returns, the receiver has stored the values."""
        ...

    def close(self, ending: Ending) -> None:
        """Record the end of the run, and disconnect."""
        ...


class Sender:
    """Sends logged values in its own thread, so that training never waits for a network or a database.

    If an error occurs, a warning is logged once. The values are kept, and sent after the next call of `add`. After an
    error, the destination is connected again, and is asked which values it has stored.

    Args:
        destination: receiver of the values.
        backlog: values that are not sent yet.
        name: name of the receiver for messages.
        note_sent: function that is called after each sending with the last step that was sent, by name.
        stops_on_error: whether `add` and `close` raise the error of the last sending.
    """

    def __init__(
        self,
        destination: Destination,
        backlog: Backlog,
        *,
        name: str,
        note_sent: Callable[[Mapping[str, int]], None],
        stops_on_error: bool = False,
    ) -> None:
        self._destination = destination
        self._backlog = backlog
        self._name = name
        self._note_sent = note_sent
        self._stops_on_error = stops_on_error
        self._changed = threading.Condition()
        self._is_asked = False
        self._ending: Ending | None = None
        self._is_connected = False
        self._error: Exception | None = None
        self._has_warned = False
        self._thread = threading.Thread(target=self._run, name=f"loopwright {name}", daemon=True)

    def start(self) -> None:
        """Start the thread, and connect."""
        self._is_asked = True
        self._thread.start()

    def add(self, points: Iterable[Point]) -> None:
        """Add values, and wake the thread.

        Raises:
            SaveError: if the last sending failed, and ``stops_on_error`` is True.
        """
        with self._changed:
            self._backlog.add(points)
            self._is_asked = True
            self._changed.notify()
        self._raise_error()

    def unsent(self) -> Sequence[Point]:
        """Return the values that are not sent yet."""
        with self._changed:
            return self._backlog.points

    def close(self, ending: Ending, seconds: float = END_SECONDS) -> None:
        """Send the last values and the end of the run. If this takes longer than ``seconds``, log a warning and return.

        Raises:
            SaveError: if the last sending failed, and ``stops_on_error`` is True.
        """
        with self._changed:
            self._ending = ending
            self._changed.notify()
        self._thread.join(seconds)
        if self._thread.is_alive():
            num_left = len(self.unsent())
            problem = "%s: %d values were not sent within %g s at the end of the run."
            _log.warning(problem, self._name, num_left, seconds)
        elif self._error is not None:
            self._raise_error()
            num_left = len(self.unsent())
            problem = "%s: %d values, and the end of the run, could not be sent (%s)."
            _log.warning(problem, self._name, num_left, _one_line(self._error))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_asked and self._ending is None:
                    self._changed.wait()
                self._is_asked, ending = False, self._ending
            try:
                self._send_all(ending)
                self._error = None
            except Exception as error:  # noqa: BLE001  (any error of another library; training continues)
                self._is_connected = False
                self._error = error
                if ending is None and not self._has_warned and not self._stops_on_error:
                    self._has_warned = True
                    problem = "%s: cannot send now (%s); values are kept, and sent again at the next log step."
                    _log.warning(problem, self._name, _one_line(error))
            if ending is not None:
                return

    def _send_all(self, ending: Ending | None) -> None:
        if not self._is_connected:
            last_steps = self._destination.connect()
            with self._changed:
                self._backlog.know(last_steps)
            self._is_connected = True
        while True:
            with self._changed:
                points = self._backlog.take(MAX_BATCH, is_end=ending is not None)
            if points:
                self._destination.send(points)
            with self._changed:
                self._backlog.note_sent(points)
                last_steps = self._backlog.last_steps
            if not points:
                break
            self._note_sent(last_steps)
        if ending is not None:
            self._destination.close(ending)

    def _raise_error(self) -> None:
        if self._stops_on_error and self._error is not None:
            raise SaveError(f"{self._name}: cannot send: {_one_line(self._error)}.") from self._error


def _one_line(error: Exception) -> str:
    is_own = isinstance(error, SaveError)
    return on_one_line(str(error) if is_own else f"{type(error).__name__}: {error}", _MAX_TEXT)
