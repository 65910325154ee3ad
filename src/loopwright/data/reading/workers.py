"""Worker processes of torch's `DataLoader`: how they start, outlive signals, tell of failures, and end."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, Protocol

from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from loopwright.data.reading.sample_errors import WorkerFailure, unreadable

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_WATCH_SECONDS = 0.2
_GRACE_SECONDS = 4.5  # within the 5 s that torch waits for one worker, and then for the next

_begun: weakref.WeakSet[_MultiProcessingDataLoaderIter] = weakref.WeakSet()  # iterators of this process with workers


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
        loop: Any = sys._getframe(1).f_locals  # of torch's worker loop, which hands its queues to nobody
        if self._blocks is not None:
            object.__setattr__(info, "dataset", self._blocks.dataset)  # it refuses to be assigned to
        _send_failures(loop["data_queue"], info.dataset, None if self._blocks is None else self._blocks.keys_of)
        _outlive_signals()
        ends_by = (loop["index_queue"], loop["done_event"])
        threading.Thread(target=_watch, args=ends_by, name="loopwright-watch", daemon=True).start()
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
    process: Any = multiprocessing.current_process()
    origin = os.getppid() if process.is_served else parent.pid

    def is_orphan() -> bool:
        # what the second waits for may be held open by other children of the parent's
        return os.getppid() != origin or not parent.is_alive()

    # no lock of is_done's is taken: whoever sets it would wait for ever for one that was killed with it
    while not is_orphan() and is_done._flag._semlock._is_zero():
        parent.join(_WATCH_SECONDS)
    if not is_orphan():
        indices.put(None)
        parent.join(_GRACE_SECONDS)
    os._exit(0)  # not 1: torch would take it for a failure of its reading


def watched(context: BaseContext | None) -> BaseContext:
    """``context``, or else the default one, whose workers find signals waiting, and are killed when Python ends."""
    usual: Any = context or multiprocessing.get_context()
    make = partial(_process, usual.Process, is_served=usual.get_start_method() == "forkserver")
    copied: BaseContext = copy.copy(usual)
    copied.__class__ = type("Watched", (type(usual),), {"Process": staticmethod(make)})
    return copied


def _process(kind: Callable[..., Any], *, is_served: bool, **arguments: Any) -> Any:
    process = kind(**arguments)
    process.is_served = is_served
    process.start = partial(_start, process)
    return process


def _start(process: Any) -> None:
    del process.start  # the attribute, which would be sent to the new process
    _kill_at_exit(os.getpid())
    if process.is_served:
        forkserver.ensure_running()  # or whatever it is to start later would have signals wait, too
    with _signals_waiting():
        process.start()


@contextmanager
def _signals_waiting() -> Iterator[None]:
    """Let signals wait while a worker is started, which inherits that: it lets them come when it is ready.

    Before that, torch has a worker end at a SIGTERM that is not its parent's.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _AsItIs:
    """A user's dataloader as an iterator of torch's is to see it: with other values of a few attributes."""

    def __init__(self, loader: DataLoader[Any], **others: Any) -> None:
        vars(self).update(others, _loader=loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def read_as_it_is(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a pass of a user's ``loader``, by workers of this pass alone, also where it would keep them."""
    loader.check_worker_number_rationality()
    seen = _AsItIs(
        loader,
        worker_init_fn=StartWorker(loader.worker_init_fn),
        multiprocessing_context=watched(loader.multiprocessing_context),
        persistent_workers=False,
    )
    return received(loader, _MultiProcessingDataLoaderIter(seen))


def received(loader: DataLoader[Any], batches: Iterator[Any]) -> Iterator[Any]:
    """The batches of an iterator of ``loader``; an error in reading them, a worker's own included, ends its workers."""
    if isinstance(batches, _MultiProcessingDataLoaderIter):
        _begun.add(batches)
    return _received(loader, batches)


def _received(loader: DataLoader[Any], batches: Iterator[Any]) -> Iterator[Any]:
    try:
        for batch in batches:
            if isinstance(batch, WorkerFailure):
                raise batch.error()
            yield batch
    except GeneratorExit:
        if not getattr(batches, "_persistent_workers", False):
            _end(batches)
        raise
    except Exception:
        _end(batches)
        if loader._iterator is batches:
            loader._iterator = None
        raise


def _end(batches: Iterator[Any]) -> None:
    """End its workers, those too that hold Python's lock for so long that they heed nothing."""
    if isinstance(batches, _MultiProcessingDataLoaderIter) and not batches._shutdown:
        batches._shutdown_workers()
        for worker in batches._workers:
            if worker.is_alive():
                worker.kill()


@cache
def _kill_at_exit(process_id: int) -> None:
    """Have the workers of this process killed when it ends, which `multiprocessing` would wait for.

    It sends them one SIGTERM, which they outlive. What it has registered is called in its own processes, too.
    """
    Finalize(None, _kill_workers, exitpriority=0)


def _kill_workers() -> None:
    left = [child for child in multiprocessing.active_children() if _is_watched(child)]
    if left:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises for each of them
    for worker in left:
        worker.kill()


def _is_watched(child: BaseProcess) -> bool:
    return hasattr(child, "is_served")  # as `_process` leaves them, before they start


def _forget_workers() -> None:
    """In a fork of this process: the workers are its parent's, and neither to be ended nor to be waited for here."""
    for batches in tuple(_begun):
        batches._shutdown = True
    _begun.clear()
    processes: Any = multiprocessing.process
    processes._children.difference_update(tuple(filter(_is_watched, processes._children)))


os.register_at_fork(after_in_child=_forget_workers)
