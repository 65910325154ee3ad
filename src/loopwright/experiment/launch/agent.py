"""`run_processes`: runs one command in several processes on this machine, through torch's elastic launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
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
_STUCK_SECONDS = 12.0  # wait before all processes are killed after one process has failed


def run_processes(request: RunRequest, device: Device) -> int:
    """Run a command line in several processes, which train together. Return the exit code of the run.

    If a process fails, the other processes end within seconds. Process 0 or this function prints the error once.

    Args:
        request: run to carry out. Each process executes the command line ``request.words``.
        device: device settings of the run.
    """
    directory, words, waits = request.directory, request.words[1:], device.waits
    remove_files(directory)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=device.num_processes,
        logs_specs=DefaultLogsSpecs(),
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
        signals_to_handle=",".join(_SIGNALS),
        shutdown_timeout=waits.grace_seconds,
    )
    failures: Mapping[int, Any] = {}
    received: int | None = None
    ended = threading.Event()
    threading.Thread(target=_end_stuck_processes, args=(directory, ended), name="stuck", daemon=True).start()
    try:
        with _as_before(), _quiet():
            os.environ |= {DIRECTORY: str(directory.absolute()), QUIET: str(int(request.is_quiet))}
            elastic_launch(config, sys.executable)("-P", "-m", "loopwright", *words)
    except ChildFailedError as error:
        failures = error.failures
    except SignalException as error:
        received = int(error.sigval)
    finally:
        ended.set()
    code = read_end(directory)
    if code is None:
        cause = find_cause(directory)
        signals = {-failure.exitcode for failure in failures.values()}
        if received is None and signals and signals <= {*_STOP_SIGNALS}:  # no process had set its signal handlers yet
            received = min(signals)
        if received is not None:
            code = _EXIT_CODES.get(received, 143)
            complain(f"interrupted (run directory: {directory})")
        elif cause is not None and cause.traceback:
            complain(f"rank {cause.rank}: {cause.line} (run directory: {directory})")
            code = cause.exit_code
        else:
            rank = min(failures, default=0)
            complain(f"rank {rank}: {_death(failures.get(rank))} (run directory: {directory})")
            code = 1
    remove_files(directory)
    return code


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
