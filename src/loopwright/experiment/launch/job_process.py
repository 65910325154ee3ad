"""`JobProcess`: a process that executes a command line, forked from a server process that has imported torch.

Importing torch takes seconds. The server imports torch once, starts no thread and uses no device, so a process that is
forked from it begins at once. If the platform cannot fork, or if the environment variable ``LOOPWRIGHT_SPAWN`` is 1,
each process is a new interpreter.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

SPAWN = "LOOPWRIGHT_SPAWN"
_SAFE_PATH = "PYTHONSAFEPATH"
# Modules that the server imports. The first optimizer of a process imports `torch._dynamo`, which takes a second.
_PRELOADED = ["torch", "torch._dynamo", "hydra", "sklearn.datasets", "loopwright.experiment.runs.run"]


class JobProcess:
    """A process in its own process group. A signal to the group of the parent, such as Ctrl-C, does not reach it.

    If the parent process ends, the process receives SIGTERM. A run then saves and ends.

    Args:
        words: words of the command line after ``loopwright``.
        environment: environment variables that are set in the process.
        output: file to which the process appends its standard output and standard error.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        self._process = _context().Process(target=_run, args=(list(words), dict(environment), str(output)))
        self._process.start()

    @property
    def process_id(self) -> int:
        """ID of the process, which is also the ID of its process group."""
        return int(self._process.pid)

    @property
    def exit_code(self) -> int | None:
        """Exit code; minus the number of the signal that killed the process; None while the process runs."""
        code: int | None = self._process.exitcode
        return code

    def terminate(self) -> None:
        """Send SIGTERM to the process. A run saves and ends."""
        if self._process.is_alive():
            os.kill(self.process_id, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and all processes of its group."""
        if self._process.is_alive():
            self._process.kill()
        with suppress(ProcessLookupError, PermissionError):  # the group has ended, or was not created yet
            os.killpg(self.process_id, signal.SIGKILL)


def wait_for_end(processes: Sequence[JobProcess], timeout_seconds: float) -> None:
    """Wait until one of the processes has ended, or until the time has passed."""
    wait([each._process.sentinel for each in processes], timeout_seconds)


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods() or os.environ.get(SPAWN) == "1":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"  # the server must not import modules from the current directory
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before
    return context


def _run(words: Sequence[str], environment: Mapping[str, str], output: str) -> None:
    """Execute ``loopwright WORDS`` in the new process, and exit with its exit code."""
    os.setsid()
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(environment)
    parent = multiprocessing.parent_process()
    assert parent is not None, "this function runs in a child process"
    threading.Thread(target=_end_with, args=(parent.sentinel,), name="parent", daemon=True).start()
    sys.argv = ["loopwright", *words]
    code = 1
    try:
        runpy.run_module("loopwright", run_name="__main__")
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 0 if exit.code is None else 1
    except BaseException:  # noqa: BLE001  (as the interpreter prints it)
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of a library must not delay the end


def _end_with(sentinel: int) -> None:
    """Send SIGTERM to this process after its parent has ended. Only the main thread receives signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
