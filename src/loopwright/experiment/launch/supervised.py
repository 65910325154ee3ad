"""`Supervised`: the connection of a process to the supervisor that started it.

The supervised process sends its run directory, receives signals, and ends when the supervisor ends.
"""

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

_GRACE_SECONDS = 0.5  # time to wait for a signal that was sent to the whole process group


def join_supervisor() -> Supervised | None:
    """Connect to the supervisor that started this process. Return None if there is no supervisor.

    Raises:
        SettingError: if the supervisor that started this process has already ended.
    """
    given = os.environ.pop(VARIABLE, None)
    if given is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", given)
    if match is None or int(match[1]) != os.getppid():
        raise SettingError(
            VARIABLE, f"={given!r}: expected the ID of the process that started this one; unset the variable."
        )
    supervised = Supervised(socket.socket(fileno=int(match[2])))
    supervised.listen()
    return supervised


class Supervised:
    """The connection of this process to its supervisor.

    When the supervisor receives a signal, the signal is also raised in this process, unless this process has received
    the signal itself. Ctrl-C in a terminal and the signals of most schedulers reach both processes. If such a signal
    were raised in this process a second time, it would end the run without a save.

    Args:
        connection: socket connected to the supervisor.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.set_inheritable(False)
        self._received, self._wakeup = socket.socketpair()

    def listen(self) -> None:
        """Start a thread that receives the supervisor's signals until this process ends. Call it in the main thread."""
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        # A forked dataloader worker must not write its signals to the socket of this process.
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        threading.Thread(target=self._listen, name="supervised", daemon=True).start()

    def tell(self, directory: Path) -> None:
        """Send the run directory that this process created."""
        with suppress(OSError):  # the thread started by `listen` handles the end of the supervisor
            self._connection.sendall(os.fsencode(directory))

    def _listen(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # the main thread handles these signals
        num_told = num_received = 0
        with suppress(ConnectionResetError):  # the supervisor ended before it had read all data
            while told := self._connection.recv(1):
                num_told += 1
                if num_received < num_told:
                    num_received += self._num_received(_GRACE_SECONDS)
                if num_received < num_told:
                    os.kill(os.getpid(), told[0])
                    num_received += self._num_received(_GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)  # the supervisor has ended, and would not restart this run

    def _num_received(self, timeout_seconds: float) -> int:
        """Return the number of signals received since the last call. Wait up to the timeout for the first."""
        if not select.select([self._received], [], [], timeout_seconds)[0]:
            return 0
        return sum(number in STOP_SIGNALS for number in self._received.recv(4096))
