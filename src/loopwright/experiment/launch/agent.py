"""`run_processes` and `start_processes`: run one command in several processes, through torch's elastic launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from loopwright.device import Device
from loopwright.experiment.console.messages import complain
from loopwright.experiment.runs.causes import find_cause, processes, read_end, remove_files
from loopwright.experiment.runs.ending import RunRequest

# Environment variables for the started processes: the run directory, and whether process 0 prints only warnings.
DIRECTORY = "LOOPWRIGHT_RUN_DIR"
QUIET = "LOOPWRIGHT_IS_QUIET"
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")
_CHANGED = ("TORCHELASTIC_SIGNALS_TO_HANDLE", DIRECTORY, QUIET)  # environment variables
_EXIT_CODES: dict[int, int] = {signal.SIGINT: 130}
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_STUCK_SECONDS = 10.0  # wait before all processes are killed after one process has failed


def run_processes(request: RunRequest, device: Device) -> int:
    """Run a command line in several processes, which train together. Return the exit code of the run.

    If a process fails, the other processes end within seconds. Process 0 or this function prints the error once.

    Args:
        request: run to carry out. Each process executes the command line ``request.words``.
        device: device settings of the run.
    """
    directory = request.directory
    failures, received = start_processes(directory, request.words[1:], device, is_quiet=request.is_quiet)
    code = read_end(directory)
    if code is None:
        code, line = describe_end(directory, failures, received)
        complain(f"{line} (run directory: {directory})")
    remove_files(directory)
    return code


def start_processes(
    directory: Path, words: Sequence[str], device: Device, *, is_quiet: bool
) -> tuple[Mapping[int, Any], int | None]:
    """Run ``loopwright WORDS`` in several processes, and wait until all have ended. Print nothing.

    The files of `loopwright.experiment.runs.causes` in ``directory`` tell how the processes have ended. The caller
    removes these files.

    Args:
        directory: run directory of the processes.
        words: words of the command line of each process.
        device: device settings, with the number of processes.
        is_quiet: whether process 0 prints only errors.

    Returns:
        For each process that ended with another exit code than 0, its failure by rank. And the number of the signal
        that ended the processes; None if this process received no signal.
    """
    remove_files(directory)
    logs = TemporaryDirectory(prefix="loopwright-")  # otherwise, torch's launcher makes one that stays
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=device.num_processes,
        logs_specs=DefaultLogsSpecs(log_dir=logs.name),
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
        signals_to_handle=",".join(_SIGNALS),
        shutdown_timeout=device.waits.grace_seconds,
    )
    failures: Mapping[int, Any] = {}
    received: int | None = None
    ended = threading.Event()
    threading.Thread(target=_end_stuck_processes, args=(directory, ended), name="stuck", daemon=True).start()
    try:
        with _as_before(), _quiet():
            os.environ |= {DIRECTORY: str(directory.absolute()), QUIET: str(int(is_quiet))}
            elastic_launch(config, sys.executable)("-P", "-m", "loopwright", *words)
    except ChildFailedError as error:
        failures = error.failures
    except SignalException as error:
        received = int(error.sigval)
    finally:
        ended.set()
        logs.cleanup()
    return failures, received


def describe_end(directory: Path, failures: Mapping[int, Any], received: int | None) -> tuple[int, str]:
    """Return the exit code and a line that says why the processes ended, if process 0 has recorded no end.

    Args:
        directory: run directory of the processes.
        failures: see `start_processes`.
        received: see `start_processes`.
    """
    cause = find_cause(directory)
    signals = {-failure.exitcode for failure in failures.values()}
    if received is None and signals and signals <= {*_STOP_SIGNALS}:  # no process had set its signal handlers yet
        received = min(signals)
    if received is not None:
        return _EXIT_CODES.get(received, 143), "interrupted"
    if cause is not None and cause.traceback:
        return cause.exit_code, f"rank {cause.rank}: {cause.line}"
    # When a process has ended, torch's launcher sends SIGTERM to the others.
    rank = min(failures, key=lambda rank: (failures[rank].exitcode == -signal.SIGTERM, rank), default=0)
    return 1, f"rank {rank}: {_death(failures.get(rank))}"


def _death(failure: Any) -> str:
    code = getattr(failure, "exitcode", 1)
    if code >= 0:
        return f"the process ended with exit code {code}, and without a message"
    return f"the process was killed by {signal.Signals(-code).name}"


def _end_stuck_processes(directory: Path, ended: threading.Event) -> None:
    """Kill all processes that still run `_STUCK_SECONDS` after a process has failed."""
    first: float | None = None
    while not ended.wait(0.25):
        if first is None and find_cause(directory) is not None:
            first = time.monotonic()
        if first is not None and time.monotonic() - first > _STUCK_SECONDS:
            for _, process_id in processes(directory):
                with suppress(OSError):
                    os.kill(process_id, signal.SIGKILL)
            return


@contextmanager
def _as_before() -> Iterator[None]:
    """Restore, at the end, the signal handlers and environment variables that torch's launcher changes."""
    numbers = [getattr(signal, name) for name in _SIGNALS]
    handlers = {number: signal.getsignal(number) for number in numbers}
    variables = {name: os.environ.get(name) for name in _CHANGED}
    try:
        yield
    finally:
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """While the context is open, disable the loggers of torch's launcher.

    Loopwright prints its own messages about signals and failed processes.
    """
    names = [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]
    before = {logger: logger.disabled for logger in map(logging.getLogger, names)}
    for logger in before:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was_disabled in before.items():
            logger.disabled = was_disabled
