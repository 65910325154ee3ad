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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

SPAWN = "LOOPWRIGHT_SPAWN"
_SAFE_PATH = "PYTHONSAFEPATH"  # variable that has the effect of python -P
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Modules that the server imports. The first optimizer of a process imports `torch._dynamo`, which takes a second.
_PRELOADED = [
    "torch",
    "torch._dynamo",
    "sklearn.datasets",
    "loopwright.models",
    "loopwright.experiment.verbs.entry",
    "loopwright.experiment.verbs.sweep_job_verb",
]
_DRAWING = ["matplotlib.figure", "matplotlib.backends.backend_agg"]  # for the curves of a run


def start_server() -> None:
    """Start the server, if processes are forked. It imports its modules while this process continues."""
    with _apart():
        _context()


class JobProcess:
    """A process in its own process group. A signal to the group of the parent, such as Ctrl-C, does not reach it.

    If the parent process ends, the process receives SIGTERM. A run then saves and ends.

    Args:
        words: words of the command line after ``loopwright``.
        environment: environment variables that are set in the process.
        output: file to which the process appends its standard output and standard error.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        arguments = list(words), dict(environment), str(output), _SAFE_PATH in os.environ
        with _apart():
            self._process = _context().Process(target=_run, args=arguments)
            self._process.start()
        self._exit_code: int | None = None
        self._is_asked = False

    @property
    def process_id(self) -> int:
        """ID of the process, which is also the ID of its process group."""
        return int(self._process.pid)

    @property
    def exit_code(self) -> int | None:
        """Exit code; minus the number of the signal that killed the process; None while the process runs.

        Only one thread may read it. A signal handler must not read it.
        """
        if self._exit_code is None:
            self._exit_code = self._process.exitcode
        return self._exit_code

    def terminate(self) -> None:
        """Send SIGTERM to the process, once. A run saves and ends; a second signal would end it without a save."""
        if self._exit_code is None and not self._is_asked:
            self._is_asked = True
            with suppress(ProcessLookupError):
                os.kill(self.process_id, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process, all processes of its group, and on Linux all processes that it has started."""
        started = [] if self._exit_code is not None else process_tree(self.process_id)
        with suppress(ProcessLookupError, PermissionError):  # the group has ended, or was not created yet
            os.killpg(self.process_id, signal.SIGKILL)
        for process_id in started:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process_id, signal.SIGKILL)


def wait_for_end(processes: Sequence[JobProcess], timeout_seconds: float) -> None:
    """Wait until one of the processes has ended, or until the time has passed."""
    wait([each._process.sentinel for each in processes], timeout_seconds)


def process_tree(process_id: int) -> list[int]:
    """Return the IDs of a process and of all its descendants; empty without ``/proc``."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):  # the process has ended
            continue
        children.setdefault(parent, []).append(int(entry.parent.name))
    if not children:
        return []
    found = [process_id]
    for each in found:
        found += children.get(each, ())
    return found


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods() or os.environ.get(SPAWN) == "1":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # With this file, matplotlib is not preloaded: it reads the file, and a setting in it can make it run `latex`.
    has_settings = os.path.lexists("matplotlibrc")
    context.set_forkserver_preload([*_PRELOADED, *([] if has_settings else _DRAWING)])
    multiprocessing.forkserver.ensure_running()
    return context


@contextmanager
def _apart() -> Iterator[None]:
    """Inside this context, start processes that ignore Ctrl-C and import no modules from the current directory.

    The processes inherit the blocked signals. `_run` unblocks them in its own process group. The fork server keeps
    them blocked. `multiprocessing` starts processes with ``python -c``, which would put the current directory first on
    ``sys.path``.
    """
    safe_path, mask = os.environ.get(_SAFE_PATH), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    os.environ[_SAFE_PATH] = "1"
    try:
        resource_tracker.ensure_running()  # before the signals are blocked, because its start unblocks them
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        yield
    finally:
        del os.environ[_SAFE_PATH]
        if safe_path is not None:
            os.environ[_SAFE_PATH] = safe_path
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _run(words: Sequence[str], environment: Mapping[str, str], output: str, has_safe_path: bool) -> None:
    """Execute ``loopwright WORDS`` in the new process, and exit with its exit code."""
    os.setsid()
    if not has_safe_path:
        os.environ.pop(_SAFE_PATH, None)
    multiprocessing.set_start_method(None, force=True)  # dataloader workers start as in a run without this server
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(environment)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    parent = multiprocessing.parent_process()
    assert parent is not None, "this function runs in a child process"
    threading.Thread(target=_end_with, args=(parent.sentinel,), name="parent", daemon=True).start()
    sys.argv = ["loopwright", *words]
    code = 1
    try:
        runpy.run_module("loopwright", run_name="__main__")
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 0 if exit.code is None else 1
    except BaseException:  # noqa: BLE001  (the traceback is printed, as the interpreter does)
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of a library must not delay the end


def _end_with(sentinel: int) -> None:
    """Send SIGTERM to this process after its parent has ended. Only the main thread receives signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
