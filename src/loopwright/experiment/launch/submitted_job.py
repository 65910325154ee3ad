"""`SubmittedJob`: the object that submitit calls in a job of Slurm. It runs a command line in a child process.

submitit pickles the object, so it contains only strings. The child process is a new interpreter. Its parent is the
process of submitit::

    batch script of Slurm, or controller of the local executor
        python -m submitit.core._submit: unpickles a SubmittedJob and calls it
            python -P -m loopwright sweep job DIR N: the run, in a process group of its own

At the time limit, submitit receives SIGUSR2 and calls `SubmittedJob.checkpoint` in a signal handler.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from loopwright.errors import CheckpointError
from loopwright.experiment.launch.supervised import VARIABLE
from loopwright.records import read_mapping
from loopwright.regular_files import replace_file

_POLL_SECONDS = 0.2
_INTERRUPTED = (130, 143)  # exit codes of a run that has saved after a signal
_OUT_OF_TIME = "out of time: the time limit was reached more often than sweep.slurm.max_requeues allows"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How the child process of a `SubmittedJob` ended.

    Attributes:
        job_id: ID of the job of Slurm, such as "1234_7"; None outside submitit.
        exit_code: exit code of the child, or minus the number of the signal that killed it.
        failure: why the job has failed although it saved; None if the exit code shows how the job ended.
    """

    job_id: str | None
    exit_code: int
    failure: str | None = None


def read_exit_record(file: Path) -> ExitRecord | None:
    """Read the file that a `SubmittedJob` has written; None if the job has not ended, or the file is damaged."""
    try:
        found = read_mapping(file)
    except CheckpointError:
        return None
    job_id, code, failure = found.get("job_id"), found.get("exit_code"), found.get("failure")
    is_valid = isinstance(job_id, str | None) and type(code) is int and isinstance(failure, str | None)
    return ExitRecord(job_id=job_id, exit_code=code, failure=failure) if is_valid and type(code) is int else None


@dataclass(kw_only=True)
class SubmittedJob:
    """Runs a command line in a child process, and records its exit code.

    After SIGTERM, the child receives SIGTERM once. A run then saves and ends.

    Args:
        words: command line of the child.
        cwd: directory in which the child starts.
        output: file to which the child appends its standard output and standard error.
        exit_file: file for the `ExitRecord`. It is not written if the job is queued again.
        request_file: file in which the launcher writes "stop" or "kill"; None if the launcher uses signals.
    """

    words: list[str]
    cwd: str
    output: str
    exit_file: str
    request_file: str | None = None
    _child: _Child | None = field(default=None, init=False, repr=False)

    def __call__(self) -> None:
        """Run the child to its end. Only the main thread may call this method."""
        child = self._child = _Child(self.words, self.cwd, self.output)
        before = signal.signal(signal.SIGTERM, self._receive)  # replaces the handler of submitit, which ignores SIGTERM
        try:
            while (code := child.exit_code()) is None:
                self._obey_request(child)
                time.sleep(_POLL_SECONDS)
        except Exception:  # raised by submitit after `checkpoint`, if the job is not queued again
            code = child.wait()
            self._record(code, _OUT_OF_TIME if code in _INTERRUPTED else None)
            raise
        else:
            child.kill()  # ends processes that the run has left, such as dataloader workers
            self._record(code, None)
        finally:
            signal.signal(signal.SIGTERM, before)
            child.close()

    def checkpoint(self) -> Any:
        """Let the child save and end, and return the submission that continues the job.

        submitit calls this method in a signal handler, which interrupts `__call__`.

        Returns:
            A ``submitit.helpers.DelayedSubmission``. None if the run was completed or has failed: then submitit raises
            an error in `__call__`, and does not queue the job again.
        """
        if self._child is not None:
            self._child.terminate()
            code = self._child.wait()
            self._child.kill()
            if code not in _INTERRUPTED:
                return None
        return import_module("submitit").helpers.DelayedSubmission(replace(self))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._child is not None:
            self._child.terminate()

    def _obey_request(self, child: _Child) -> None:
        if self.request_file is None or not os.path.lexists(self.request_file):
            return
        child.terminate()
        if Path(self.request_file).read_text(encoding="utf-8") == "kill":
            child.kill()

    def _record(self, code: int, failure: str | None) -> None:
        record = {"job_id": _job_id(), "exit_code": code, "failure": failure}
        replace_file(Path(self.exit_file), json.dumps(record).encode())


class _Child:
    """A child process in its own session, connected to this process as `Supervised` describes.

    Some configurations of Slurm send a signal to all processes of a job, others only to the process of submitit. In
    both cases, the connection delivers SIGTERM once. A second SIGTERM would end the child without a save. The child
    also saves and ends if this process is killed.

    ``Popen.wait`` and ``Popen.poll`` hold a lock. If a signal handler waits for the child with these methods while the
    interrupted code holds the lock, it waits forever. ``os.waitid`` with ``WNOWAIT`` needs no lock.
    """

    def __init__(self, words: Sequence[str], cwd: str, output: str) -> None:
        self._connection, theirs = socket.socketpair()
        self._is_asked = False
        self._code: int | None = None
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        environment = {**os.environ, VARIABLE: f"{os.getpid()}:{theirs.fileno()}"}
        environment.pop("PYTHONSAFEPATH", None)  # the command line contains -P, which has the same effect
        # The child inherits the blocked signal. Otherwise, SIGUSR2 to all processes of a job would kill the child.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        try:
            self._process = subprocess.Popen(
                words,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(log)
            theirs.close()

    def exit_code(self) -> int | None:
        """Return the exit code, or minus the number of the signal that killed the child; None while it runs."""
        return self._wait(os.WEXITED | os.WNOWAIT | os.WNOHANG)

    def wait(self) -> int:
        """Wait for the end of the child, and return its exit code. A signal handler may call this method."""
        code = self._wait(os.WEXITED | os.WNOWAIT)
        assert code is not None, "this call waits"
        return code

    def terminate(self) -> None:
        """Ask the child to save and end, once."""
        if not self._is_asked:
            self._is_asked = True
            with suppress(OSError):  # the child has ended
                self._connection.sendall(bytes([signal.SIGTERM]))

    def kill(self) -> None:
        """Kill the child and all processes of its group."""
        with suppress(ProcessLookupError, PermissionError):  # the group has ended
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Release the resources of a child that has ended."""
        self._connection.close()
        if self.exit_code() is not None:
            self._process.wait()

    def _wait(self, options: int) -> int | None:
        if self._code is None:
            ended = os.waitid(os.P_PID, self._process.pid, options)
            if ended is not None:
                self._code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        return self._code


def _job_id() -> str | None:
    try:
        job_id: str = import_module("submitit").JobEnvironment().job_id
    except (ImportError, RuntimeError):  # outside submitit
        return None
    return job_id
