"""Worker processes of torch's `DataLoader`: how they start, outlive signals, tell of failures, and end."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.queues import Queue
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from loopwright.data.faults import WorkerFailure, unreadable

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

# The iterators with workers, and the process whose children those are: a fork of it has the iterators, too.
_with_workers: weakref.WeakKeyDictionary[_MultiProcessingDataLoaderIter, int] = weakref.WeakKeyDictionary()


@runtime_checkable
class Blocks(Protocol):
    """What workers of ours read from, in the place of the user's data set."""

    dataset: Any

    def not_sent(self, batch: Any, error: Exception) -> WorkerFailure | None:
        """What goes out in place of ``batch``, if that was read from here."""


class _StartWorker:
    """Starts a worker as the user's loader would: its data set, and not ours, is what ``get_worker_info`` tells of."""

    def __init__(self, worker_init_fn: Callable[[int], None] | None) -> None:
        self._worker_init_fn = worker_init_fn

    def __call__(self, worker: int) -> None:
        info: Any = get_worker_info()
        blocks = info.dataset
        if isinstance(blocks, Blocks):
            object.__setattr__(info, "dataset", blocks.dataset)  # it refuses to be assigned to
            _send_failures(blocks.not_sent)
        else:
            _send_failures(partial(_not_sent, blocks))
        _outlive_signals()
        threading.Thread(target=_end_with_parent, name="loopwright-parent", daemon=True).start()
        sys.excepthook = _say_uncaught
        if self._worker_init_fn is not None:
            self._worker_init_fn(worker)


def _not_sent(dataset: Any, batch: Any, error: Exception) -> WorkerFailure:
    """What goes out in place of a batch of which nobody knows what it was made of."""
    failure = unreadable(dataset, (), error, "cannot be sent on")
    failure.__cause__ = error
    return WorkerFailure.of(failure)


def _send_failures(not_sent: Callable[[Any, Exception], WorkerFailure | None]) -> None:
    """Have a batch that cannot be pickled go out as its failure: a queue drops it, and whoever waits waits for ever."""

    def failed(queue: Any, error: Exception, item: Any) -> None:
        failure = not_sent(item[1], error) if isinstance(item, tuple) and len(item) == 2 else None
        if failure is None:  # a queue of the user's
            usual(error, item)
        else:
            queue.put((item[0], failure))

    queues: Any = Queue  # all of this process; the one for batches is not at hand
    usual = queues._on_queue_feeder_error
    queues._on_queue_feeder_error = failed


def _say_uncaught(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """What nobody catches in a worker: not that whoever asked a thread of it for a tensor has gone meanwhile."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, at)


def _end_with_parent() -> None:
    """End when the parent has, also where it died before this process was ready: from then on torch sees none die."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # they are the main thread's
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _outlive_signals() -> None:
    """A signal to a whole group of processes is the main one's affair, which needs the rest of its step from here.

    A second SIGTERM ends a worker: that is how one that does not react is shut down for good.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def begin_reading(loader: DataLoader[Any]) -> Iterator[Any]:
    """An iterator of ``loader`` whose workers outlive signals, tell of failures, and end with this process."""
    if not loader.num_workers:
        return iter(loader)
    usual = loader.worker_init_fn
    loader.worker_init_fn = _StartWorker(usual)
    try:
        with _signals_waiting():
            batches = iter(loader)
    finally:
        loader.worker_init_fn = usual
    return batches


@contextmanager
def _signals_waiting() -> Iterator[None]:
    """Let signals wait for as long as workers are started, which inherit that: they let them come when they are ready.

    Before that, torch has a worker end at a SIGTERM that is not its parent's.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def received(loader: Any, batches: Iterator[Any]) -> Iterator[Any]:
    """The batches of a dataloader's iterator; an error in reading them, a worker's own included, ends its workers.

    So does letting go of what is returned, or of the loader if that keeps them. Left to the garbage collector itself,
    which has taken its queues away by then, torch's iterator waits 5 s for each of them, in vain.
    """
    reading = _received(loader, batches)
    if isinstance(batches, _MultiProcessingDataLoaderIter) and batches not in _with_workers:
        _with_workers[batches] = os.getpid()
        owner = loader if loader.persistent_workers else reading
        weakref.finalize(owner, _end_workers, batches).atexit = False
    return reading


def _received(loader: Any, batches: Iterator[Any]) -> Iterator[Any]:
    try:
        for batch in batches:
            if isinstance(batch, WorkerFailure):
                raise batch.error()
            yield batch
    except Exception:
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            batches._shutdown_workers()
            loader._iterator = None
        raise


def _end_workers(batches: _MultiProcessingDataLoaderIter) -> None:
    if _with_workers[batches] == os.getpid():
        batches._shutdown_workers()


@atexit.register
def _end_all_workers() -> None:
    """End the workers that are there when Python ends.

    Registered after torch was imported, this comes before torch takes Python for gone and leaves workers as they are,
    and before `multiprocessing` waits for them: of them, that outlive one SIGTERM, it would wait for ever.
    """
    for batches in tuple(_with_workers):
        _end_workers(batches)
