"""Worker processes of torch's `DataLoader`: how they start, outlive signals, tell of failures, and end."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Any, Protocol

from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from loopwright.data.faults import WorkerFailure, unreadable

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_WATCH_SECONDS = 0.2
_GRACE_SECONDS = 4.5  # within the 5 s that torch waits for one worker, and then for the next

_begun: weakref.WeakSet[_MultiProcessingDataLoaderIter] = weakref.WeakSet()
_lending = threading.RLock()


class Blocks(Protocol):
    """What workers of ours read from, in the place of the user's data set."""

    dataset: Any

    def keys_of(self, batch: Any) -> Sequence[Any]:
        """What ``batch`` was made of; empty where that is not known any more."""


class StartWorker:
    """A ``worker_init_fn`` that starts a worker as the user's own does, and has it heed what this module promises.

    Args:
        worker_init_fn: the user's.
        blocks: what is read, if not a data set of the user's; it is his that ``get_worker_info`` then tells of.
    """

    def __init__(self, worker_init_fn: Callable[[int], None] | None, blocks: Blocks | None = None) -> None:
        self._worker_init_fn = worker_init_fn
        self._blocks = blocks

    def __call__(self, worker: int) -> None:
        info: Any = get_worker_info()
        process: Any = multiprocessing.current_process()
        indices, batches = (each for each in process._args if isinstance(each, Queue))
        (is_done,) = (each for each in process._args if isinstance(each, Event))
        if self._blocks is not None:
            object.__setattr__(info, "dataset", self._blocks.dataset)  # it refuses to be assigned to
        _send_failures(batches, info.dataset, None if self._blocks is None else self._blocks.keys_of)
        _outlive_signals()
        threading.Thread(target=_watch, args=(indices, is_done), name="loopwright-watch", daemon=True).start()
        sys.excepthook = _say_uncaught
        if self._worker_init_fn is not None:
            self._worker_init_fn(worker)


def _send_failures(batches: Any, dataset: Any, keys_of: Callable[[Any], Sequence[Any]] | None) -> None:
    """Have what cannot be pickled go out as its failure: a queue drops it, and whoever waits waits for ever."""

    def failed(error: Exception, item: tuple[Any, Any]) -> None:
        number, batch = item
        keys = () if keys_of is None else keys_of(batch)
        failure = unreadable(dataset, keys, error, "cannot be sent on")
        failure.__cause__ = RuntimeError(batch.exc_msg) if isinstance(batch, ExceptionWrapper) else error
        batches.put((number, WorkerFailure.of(failure)))

    batches._on_queue_feeder_error = failed


def _say_uncaught(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """What nobody catches in a worker: not that whoever asked a thread of it for a tensor has gone meanwhile."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, at)


def _outlive_signals() -> None:
    """A signal to a whole group of processes is the main one's affair, which needs the rest of its step from here.

    A second SIGTERM ends a worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def _watch(indices: Any, is_done: Any) -> None:
    """In a thread of a worker: end with the parent, or soon after it has said that no more batches are needed.

    The parent may have died before this process was ready: from then on torch sees none die. And it may say so from
    the garbage collector, which has taken its end of the queue away: so what wakes a worker up comes from here.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # they are the main thread's
    parent: Any = multiprocessing.parent_process()
    # no lock of is_done's is taken: whoever sets it would wait for ever for one that was killed with it
    while parent.is_alive() and is_done._flag._semlock._is_zero():
        parent.join(_WATCH_SECONDS)
    if parent.is_alive():
        indices.put(None)
        parent.join(_GRACE_SECONDS)
    os._exit(0)  # not 1: torch would take it for a failure of its reading


def read(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a pass of ``loader``, whose ``worker_init_fn`` is a `StartWorker`.

    An error in reading them, a worker's own included, ends its workers.
    """
    with _signals_waiting(loader):
        batches = iter(loader)
    if isinstance(batches, _MultiProcessingDataLoaderIter):
        _begun.add(batches)
    return _received(loader, batches)


def read_as_it_is(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a pass of a user's ``loader``, by workers of this pass alone, also where it would keep them."""
    with _lending:
        usual = {name: vars(loader)[name] for name in ("worker_init_fn", "persistent_workers")}
        vars(loader).update(worker_init_fn=StartWorker(loader.worker_init_fn), persistent_workers=False)
        try:
            return read(loader)
        finally:
            vars(loader).update(usual)  # persistent_workers refuses to be assigned to


@contextmanager
def _signals_waiting(loader: DataLoader[Any]) -> Iterator[None]:
    """Let signals wait for as long as workers are started, which inherit that: they let them come when they are ready.

    Before that, torch has a worker end at a SIGTERM that is not its parent's.
    """
    context: Any = loader.multiprocessing_context or multiprocessing
    if loader.num_workers and context.get_start_method() == "forkserver":
        forkserver.ensure_running()  # or whatever it is to start later would inherit that, too
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _received(loader: Any, batches: Iterator[Any]) -> Iterator[Any]:
    try:
        for batch in batches:
            if isinstance(batch, WorkerFailure):
                raise batch.error()
            yield batch
    except Exception:
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            batches._shutdown_workers()
        if loader._iterator is batches:
            loader._iterator = None
        raise


@atexit.register
def _end_workers() -> None:
    """End the workers that are there when Python ends.

    Registered after torch was imported, this comes before torch takes Python for gone and leaves workers as they are,
    and before `multiprocessing` waits for them: of them, that outlive one SIGTERM, it would wait for ever.
    """
    begun = tuple(_begun)
    try:
        for batches in begun:
            with suppress(RuntimeError):  # torch's, wherever this process is when a signal ends a worker
                batches._shutdown_workers()
    finally:
        for worker in (worker for batches in begun for worker in batches._workers):
            if worker.is_alive():
                worker.kill()


def _forget_workers() -> None:
    """In a fork of this process: the workers are its parent's, which would wait for them if they ended with this."""
    for batches in tuple(_begun):
        batches._shutdown = True
    _begun.clear()


os.register_at_fork(after_in_child=_forget_workers)
