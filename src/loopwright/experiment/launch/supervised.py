"""The process that a supervisor watches: tells of its directory, is told of signals, ends when the supervisor does."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path

from loopwright.errors import SettingError

VARIABLE = "LOOPWRIGHT_SUPERVISOR"  # "<process id of the supervisor>:<descriptor of the connection>"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

_GRACE_SECONDS = 0.5  # in which a signal to the whole group of processes comes to this one, too


def join_supervisor() -> Supervised | None:
    """Begin to listen to the supervisor that started this process; None where none did.

    Raises:
        SettingError: if it has gone already.
    """
    given = os.environ.pop(VARIABLE, None)
    if given is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", given)
    if match is None or int(match[1]) != os.getppid():
        raise SettingError(
            VARIABLE, f"={given!r}: expected the process that started this one, which is another; unset it."
        )
    supervised = Supervised(socket.socket(fileno=int(match[2])))
    supervised.listen()
    return supervised


class Supervised:
    """This process as its supervisor knows it.

    A signal that the supervisor was sent is raised here, unless it came to this process as well, as Ctrl-C in a
    terminal and the signals of most schedulers do: a second one would end the run without a save.

    Args:
        connection: to the supervisor.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.set_inheritable(False)
        self._received, self._wakeup = socket.socketpair()

    def listen(self) -> None:
        """Listen in a thread of its own, for as long as this process lives. Called in the main thread."""
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # what comes to workers is theirs
        threading.Thread(target=self._listen, name="supervised", daemon=True).start()

    def tell(self, directory: Path) -> None:
        """Name the run directory that this process made."""
        with suppress(OSError):  # that it has gone is noticed elsewhere
            self._connection.sendall(os.fsencode(directory))

    def _listen(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # they are the main thread's
        num_told = num_received = 0
        with suppress(ConnectionResetError):  # the end of one that had not read all
            while told := self._connection.recv(1):
                num_told += 1
                if num_received < num_told:
                    num_received += self._num_received(_GRACE_SECONDS)
                if num_received < num_told:
                    os.kill(os.getpid(), told[0])
                    num_received += self._num_received(_GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)  # the supervisor was killed: nobody would know of this process

    def _num_received(self, timeout_seconds: float) -> int:
        """Signals that came to this process and were not counted yet; waits for the first of them."""
        if not select.select([self._received], [], [], timeout_seconds)[0]:
            return 0
        return sum(number in STOP_SIGNALS for number in self._received.recv(4096))
