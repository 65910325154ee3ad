"""Functions that start torch's `DataLoader` workers, handle their signals and end them.

A batch that a worker cannot send to the main process is replaced by an error.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, forkserver, queues, util
from typing import Any

from torch.utils.data import DataLoader, get_worker_info

from loopwright.data.reading.sample_errors import ReadBatch, WorkerFailure, unreadable

_SAFE_PATH = "PYTHONSAFEPATH"  # variable that has the effect of python -P
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def with_workers(loader: DataLoader[Any], dataset: Any) -> tuple[DataLoader[Any], util.Finalize[None]]:
    """Copy ``loader`` for `read_pass`; return the copy, and a function that ends the workers within 3 s.

    Python also calls this function when the interpreter exits or the copy is deleted. In a worker,
    ``get_worker_info().dataset`` is ``dataset``.
    """
    ending, end = multiprocessing.Pipe(duplex=False)
    context: Any = copy.copy(loader.multiprocessing_context or multiprocessing.get_context())
    vars(context).update(Queue=partial(_Queue, ctx=context), Process=partial(_process, context.Process))
    has_server = context.get_start_method() == "forkserver"
    if has_server:
        # If `read_pass` started the fork server, the server and all its children would inherit blocked signals.
        with _away_from_current_directory(context):
            forkserver.ensure_running()
    copied = copy.copy(loader)
    copied.multiprocessing_context = context
    vars(copied)["worker_init_fn"] = partial(_prepare, loader.worker_init_fn, dataset, ending, has_server)
    return copied, util.Finalize(copied, end.send_bytes, (b"end",), exitpriority=0)


def read_pass(loader: DataLoader[Any], end: Callable[[], None]) -> Iterator[Any]:
    """Yield None when the workers have started, then the batches of a pass.

    ``end`` is called after an error, and at the end of a pass without persistent workers.
    """
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # `_prepare` unblocks the signals in workers
        try:
            with _away_from_current_directory(loader.multiprocessing_context):
                batches = iter(loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield None
        for batch in batches:
            if isinstance(batch, WorkerFailure):
                raise batch.error()
            yield batch
    except Exception as error:
        end()
        if isinstance(error, OSError | EOFError):
            time.sleep(1.0)  # If a worker has died, torch raises its own error during this sleep.
        raise
    finally:
        if not loader.persistent_workers:
            end()


@contextmanager
def _away_from_current_directory(context: Any) -> Iterator[None]:
    """Prevent processes that start in this context from importing modules of the current directory.

    `multiprocessing` starts these processes with ``python -c``, which puts the current directory first on ``sys.path``.
    Python replaces this path by the path of the main process, but only after the first imports.
    """
    if context.get_start_method() == "fork":
        yield
        return
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        del os.environ[_SAFE_PATH]
        if before is not None:
            os.environ[_SAFE_PATH] = before


def _prepare(
    start: Callable[[int], None] | None, dataset: Any, ending: connection.Connection, has_server: bool, worker: int
) -> None:
    """Prepare a worker process, then call ``start``, the user's ``worker_init_fn``."""
    # Only the main process reacts to a signal to the process group. It needs this worker's batches to finish its step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)  # Programs that the data set starts would inherit SIG_IGN.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    threading.Thread(target=_exit_at_end, args=(ending, has_server), daemon=True).start()
    # The default hook would print an error if the main process ended while it received a tensor from this worker.
    sys.excepthook = lambda *_: None
    object.__setattr__(get_worker_info(), "dataset", dataset)  # The worker info is a frozen dataclass.
    if start is not None:
        start(worker)


def _exit_at_end(ending: connection.Connection, has_server: bool) -> None:
    """Exit 2 s after a message arrives in ``ending`` or the main process ends, even if a sample is being read."""
    parent: Any = multiprocessing.parent_process()
    # The id of the parent changes even if another child of the main process keeps the sentinel open. The parent of a
    # worker from a fork server is the server.
    while (has_server or os.getppid() == parent.pid) and not connection.wait([ending, parent.sentinel], timeout=1.0):
        pass
    time.sleep(2.0)  # Torch waits 5 s. Torch's pinning thread must not receive an incomplete batch.
    os._exit(0)  # Torch would report any other exit status as a failure.


def _process(make: Callable[..., Any], **arguments: Any) -> Any:
    process = make(**arguments)
    process.terminate = process.kill  # Only SIGKILL ends a worker that keeps the GIL during a call of C code.
    return process


class _Queue(queues.Queue):  # type: ignore[type-arg]  # `queues.Queue[Any]` raises in Python 3.11
    """Sends a failure instead of a batch that cannot be pickled, for which the main process would wait forever."""

    def _on_queue_feeder_error(self, error: Exception, item: tuple[int, Any]) -> None:  # private: no public hook exists
        number, batch = item
        info: Any = get_worker_info()
        keys = batch.keys if isinstance(batch, ReadBatch) else ()
        failure = unreadable(info.dataset, keys, error, "cannot be sent to the main process")
        failure.__cause__ = RuntimeError(batch.exc_msg) if hasattr(batch, "exc_msg") else error  # wrapped by torch
        self.put((number, WorkerFailure.of(failure)))
