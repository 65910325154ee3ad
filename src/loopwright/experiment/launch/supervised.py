"""`Supervised`: the connection between a process and the supervisor that started the process.

The supervised process sends the path of its run directory, receives signals, and ends when the supervisor ends.
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

_GRACE_SECONDS = 0.5  # time to wait until a signal to the whole process group also reaches this process


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
            VARIABLE, f"={given!r}: expected the ID of the process that started this process; unset the variable."
        )
    supervised = Supervised(socket.socket(fileno=int(match[2])))
    supervised.listen()
    return supervised


class Supervised:
    """The connection between this process and its supervisor.

    The supervisor sends the number of each signal that it receives. Ctrl-C in a terminal and the signals of most
    schedulers reach the supervisor and this process. Any other signal reaches only the supervisor, and `Supervised`
    raises the signal in this process. A signal is never raised twice, because a second signal ends the run without a
    checkpoint.

    Args:
        connection: socket connected to the supervisor.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.set_inheritable(False)
        self._received, self._wakeup = socket.socketpair()

    def listen(self) -> None:
        """Start a thread that receives signals from the supervisor until this process ends.

        Only the main thread may call this method.
        """
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
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # only the main thread receives these signals
        num_told = num_received = 0
        with suppress(ConnectionResetError):  # the supervisor ended without reading all data
            while told := self._connection.recv(1):
                num_told += 1
                if num_received < num_told:
                    num_received += self._num_received(_GRACE_SECONDS)
                if num_received < num_told:
                    os.kill(os.getpid(), told[0])
                    num_received += self._num_received(_GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)  # end the run, because no supervisor is left to restart it

    def _num_received(self, timeout_seconds: float) -> int:
        """Return the number of stop signals since the last call. Wait for one signal, up to the timeout."""
        if not select.select([self._received], [], [], timeout_seconds)[0]:
            return 0
        return sum(number in STOP_SIGNALS for number in self._received.recv(4096))
