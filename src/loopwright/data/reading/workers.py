"""Worker processes of torch's `DataLoader`: their start, their signals, their end, and what they cannot send."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import connection, forkserver, queues, util
from typing import Any

from torch.utils.data import DataLoader, get_worker_info

from loopwright.data.reading.sample_errors import ReadBatch, WorkerFailure, unreadable

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def with_workers(loader: DataLoader[Any], dataset: Any) -> tuple[DataLoader[Any], util.Finalize[None]]:
    """Copy ``loader`` for `read_pass`; return the copy and a function that ends its workers within 3 s.

    Python also calls that function when it exits or deletes the copy. Workers see ``dataset`` in `get_worker_info`.
    """
    ending, end = multiprocessing.Pipe(duplex=False)
    context: Any = copy.copy(loader.multiprocessing_context or multiprocessing.get_context())
    vars(context).update(Queue=partial(_Queue, ctx=context), Process=partial(_process, context.Process))
    if context.get_start_method() == "forkserver":
        forkserver.ensure_running()  # Started by `read_pass`, it would pass blocked signals on to all its children.
    copied = copy.copy(loader)
    copied.multiprocessing_context = context
    vars(copied)["worker_init_fn"] = partial(_prepare, loader.worker_init_fn, dataset, ending)
    return copied, util.Finalize(copied, end.send_bytes, (b"end",), exitpriority=0)


def read_pass(loader: DataLoader[Any], end: Callable[[], None]) -> Iterator[Any]:
    """Yield None once the workers have started, then the batches of a pass; call ``end`` unless workers persist."""
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # `_prepare` unblocks them in the workers
        try:
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
            time.sleep(1.0)  # A worker may be dying. When it is dead, torch raises its own error here.
        raise
    finally:
        if not loader.persistent_workers:
            end()


def _prepare(start: Callable[[int], None] | None, dataset: Any, ending: connection.Connection, worker: int) -> None:
    """Prepare a worker process, then call ``start``, the user's ``worker_init_fn``."""
    # Only the main process reacts to a signal to the process group. To finish its step it needs batches from here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)  # Programs that the data set starts would inherit SIG_IGN.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    threading.Thread(target=_exit_at_end, args=(ending,), daemon=True).start()
    sys.excepthook = lambda *_: None  # It would print an error if the main process ended while it received a tensor.
    object.__setattr__(get_worker_info(), "dataset", dataset)  # The worker info is a frozen dataclass.
    if start is not None:
        start(worker)


def _exit_at_end(ending: connection.Connection) -> None:
    """Exit 2 s after a message in ``ending`` or the death of the main process, even while a sample is read."""
    parent: Any = multiprocessing.parent_process()
    parent_id = os.getppid()  # This changes even if another child of the main process keeps the sentinel open.
    while os.getppid() == parent_id and not connection.wait([ending, parent.sentinel], timeout=1.0):
        pass
    time.sleep(2.0)  # Torch waits 5 s. Its thread that pins memory must not receive half a batch.
    os._exit(0)  # Torch would report any other exit status as a failure.


def _process(make: Callable[..., Any], **arguments: Any) -> Any:
    process = make(**arguments)
    process.terminate = process.kill  # A worker that keeps Python's lock in a call into C ends by SIGKILL only.
    return process


class _Queue(queues.Queue):  # type: ignore[type-arg]
    """Sends a failure in place of a batch that cannot be pickled. Otherwise the main process would wait forever."""

    def _on_queue_feeder_error(self, error: Exception, item: tuple[int, Any]) -> None:  # private: no public hook exists
        number, batch = item
        info: Any = get_worker_info()
        keys = batch.keys if isinstance(batch, ReadBatch) else ()
        failure = unreadable(info.dataset, keys, error, "cannot be sent to the main process")
        failure.__cause__ = RuntimeError(batch.exc_msg) if hasattr(batch, "exc_msg") else error  # wrapped by torch
        self.put((number, WorkerFailure.of(failure)))
