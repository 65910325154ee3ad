"""The supervisor: runs the command in a process of its own, and starts it again where it dies. Imports no torch.

::

    run the command as it was typed
    while it died, and may be started again:
        run "resume" on its directory, from its newest checkpoint; where it has none, the command as typed
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

from loopwright.experiment.command.command_line import CommandLine
from loopwright.experiment.command.speech import complain
from loopwright.experiment.rundir.record import read_summary
from loopwright.experiment.supervise.restarts import Restarts
from loopwright.experiment.supervise.supervised import STOP_SIGNALS, VARIABLE

_INTERRUPTED: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}
_NOT_RESTARTED = (0, 2, 3, *_INTERRUPTED.values())  # done, what would be refused again, and what was asked for


def supervise(line: CommandLine, max_restarts: int, *, may_begin_again: bool) -> int:
    """Run a command, again where it dies, and return the exit code of the last one.

    Args:
        line: trains a run, or resumes one.
        max_restarts: restarts without a new checkpoint in between.
        may_begin_again: whether a run that died before its first checkpoint can have another directory.
    """
    words: Sequence[str] = line.words
    directory = None if line.directory is None else Path(line.directory)
    restarts = Restarts(max_restarts, newest_step(directory))
    with _Child() as child:
        while True:
            code, told = child.run(words)
            directory = told or directory
            exit_code = _exit_code(code)
            if exit_code in _NOT_RESTARTED or child.is_stopped:
                return exit_code
            step = newest_step(directory)
            where = "before its first checkpoint" if step is None else f"after the checkpoint of step {step:,}"
            if not restarts.allow_another(step):
                complain(
                    f"{directory or 'the run'}: died {restarts.num_in_a_row} times in a row {where}; not started again "
                    f"(max_restarts={max_restarts}). Last: {_why(code, directory)}"
                )
                return exit_code
            count = f"restart {restarts.num_in_a_row} of {max_restarts} without a new checkpoint"
            if step is not None:
                complain(f"{directory}: {_death(code)} {where}, from which it goes on; {count}.")
                words = words if line.directory is not None else _resume_words(line, directory)
            elif directory is None or may_begin_again:
                complain(f"{directory or 'the run'}: {_death(code)} {where} and is begun again; {count}.")
                directory = None
            else:
                complain(f"{directory}: {_death(code)} {where}; nothing to go on from. Begin again in a new directory.")
                return exit_code


def newest_step(run_dir: Path | None) -> int | None:
    """The step of the newest checkpoint of a run by its folder's name; None where there is none."""
    folders = [] if run_dir is None else run_dir.glob("checkpoints/step_*")
    return max((int(path.name[5:]) for path in folders if re.fullmatch(r"step_\d+", path.name)), default=None)


def _resume_words(line: CommandLine, directory: Path | None) -> list[str]:
    return ["resume", *(f"--trust={name}" for name in line.trust), str(directory)]


def _exit_code(code: int) -> int:
    """The exit code for what `subprocess` says, which is negative where a signal ended the process."""
    return code if code >= 0 else _INTERRUPTED.get(-code, 1)


def _death(code: int) -> str:
    if code >= 0:
        return "failed"
    known = {number.value: number.name for number in signal.Signals}
    return f"was killed by {known.get(-code, f'signal {-code}')}"


def _why(code: int, directory: Path | None) -> str:
    summary = None if directory is None else read_summary(directory)
    if code >= 0 and summary is not None and summary.get("error"):
        return str(summary["error"])
    return f"{_death(code)}."


class _Child:
    """One process at a time; while the context is open, the signals that would stop this one are told to it."""

    def __init__(self) -> None:
        self._connection: socket.socket | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._received: signal.Signals | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether a signal came."""
        return self._received is not None

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, words: Sequence[str]) -> tuple[int, Path | None]:
        """Run the command with ``words``; returns how it ended, and the directory that it told of."""
        # A module of the current directory that has the package's name is not to be run (-P).
        command = [sys.executable, "-P", "-m", "loopwright", *words]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._connection = ours
            if self._received is not None:
                return -self._received, None
            environment = {**os.environ, VARIABLE: f"{os.getpid()}:{theirs.fileno()}"}
            with subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment) as process:
                theirs.close()
                code = process.wait()
            self._connection = None
            ours.setblocking(False)
            told = b""
            with suppress(BlockingIOError):  # it told nothing, and a process that it left behind holds its end
                told = ours.recv(1 << 16)
        return code, Path(os.fsdecode(told)) if told else None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)
        if self._connection is not None:
            with suppress(OSError):  # it has ended
                self._connection.sendall(bytes([number]))
