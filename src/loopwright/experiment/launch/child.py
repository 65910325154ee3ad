"""`Child`: runs a command line in a child process that is connected to this process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self

from loopwright.experiment.launch.supervised import STOP_SIGNALS, VARIABLE

INTERRUPTED: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}  # exit codes by signal


class Child:
    """Runs child processes one after another. While the context is open, stop signals are sent to the running child.

    Attributes:
        received: the last stop signal that this process has received; None if it has received none.
    """

    def __init__(self) -> None:
        self._connection: socket.socket | None = None
        self._before: dict[signal.Signals, Any] = {}
        self.received: signal.Signals | None = None

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, words: Sequence[str], errors: IO[str] | None = None) -> tuple[int, Path | None]:
        """Run ``loopwright`` with ``words``. Return the exit code, and the directory if the child sent its path.

        Args:
            words: words of the command line after ``loopwright``.
            errors: file for the standard error of the child; None: the standard error of this process.
        """
        # With -P, sys.path does not contain the current directory, which may contain another module named loopwright.
        command = [sys.executable, "-P", "-m", "loopwright", *words]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._connection = ours
            if self.received is not None:
                return -self.received, None
            environment = {**os.environ, VARIABLE: f"{os.getpid()}:{theirs.fileno()}"}
            with subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stderr=errors) as process:
                theirs.close()
                code = process.wait()
            self._connection = None
            ours.setblocking(False)
            sent = b""
            # A process that the child started may keep the socket open. If the child sent nothing, a blocking read
            # would then wait without limit.
            with suppress(BlockingIOError):
                sent = ours.recv(1 << 16)
        return code, Path(os.fsdecode(sent)) if sent else None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if self._connection is not None:
            with suppress(OSError):  # the child has ended
                self._connection.sendall(bytes([number]))


def death_of(code: int) -> str:
    """Return how a child process with an exit code has ended, as the end of a sentence."""
    if code >= 0:
        return "failed" if code else "exited early with code 0"
    known = {number.value: number.name for number in signal.Signals}
    return f"was killed by {known.get(-code, f'signal {-code}')}"
