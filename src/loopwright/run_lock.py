"""`hold` locks a run directory, `is_locked` tells whether a process holds the lock. Only one process can hold it."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, SaveError

LOCK_FILE = ".lock"

# Directories that open `hold` contexts have locked, each as (process ID, device, inode). A forked process inherits this
# variable but not the locks. The process ID shows which process holds the lock.
_HELD: ContextVar[frozenset[tuple[int, int, int]]] = ContextVar("held run directories", default=frozenset())

_log = logging.getLogger("loopwright")


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Lock a run directory while the context is open.

    The lock is an operating-system lock on the file ``.lock``. The system releases the lock when the process ends or is
    killed. Forked processes do not inherit the lock. The file contains the ID of the process that holds the lock, the
    host, and the time of locking. The file is never deleted. If the file system does not support locks, a warning is
    logged.

    Contexts of one directory can be nested. For example, a command locks its run directory, and then its trainer locks
    this directory. Only the outermost context locks and unlocks, because the system releases the lock as soon as any
    context closes the file.

    Raises:
        CheckpointError: if another process holds the lock. The message contains the ID of that process, if it is known.
        SaveError: if the file ``.lock`` cannot be written.
    """
    path = directory / LOCK_FILE
    try:
        found = os.stat(directory)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written: {error.strerror or error}") from error
    entry = os.getpid(), found.st_dev, found.st_ino
    if entry in _HELD.get():
        yield
        return
    with _locked(path):
        token = _HELD.set(_HELD.get() | {entry})
        try:
            yield
        finally:
            _HELD.reset(token)


def is_held(directory: Path) -> bool:
    """Return whether an open `hold` context has locked a directory. The file ``.lock`` is not opened."""
    try:
        found = os.stat(directory)
    except OSError:
        return False
    return (os.getpid(), found.st_dev, found.st_ino) in _HELD.get()


def is_locked(directory: Path) -> bool:
    """Return whether a process on this machine holds the lock of a directory. Nothing is written.

    If this process holds the lock, the file is not opened, because closing the file would release the lock.
    """
    if is_held(directory):
        return True
    try:
        descriptor = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a shared lock needs no permission to write
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file ``path``, and write the ID of this process into the file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        _lock(descriptor, path.parent)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_holder()).encode() + b"\n", 0)
        except OSError as error:
            raise SaveError(f"{path}: cannot be written: {error.strerror or error}") from error
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise CheckpointError(f"{directory}: in use by {_describe(descriptor)}; wait until it ends.") from None
        _log.warning("%s: cannot be locked (%s); make sure that no other process uses it.", directory, error.strerror)


def _holder() -> dict[str, Any]:
    return {
        "process_id": os.getpid(),
        "host": platform.node(),
        "since": datetime.now().isoformat(sep=" ", timespec="seconds"),
    }


def _describe(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['process_id']} on {holder['host']}, since {holder['since']}"
    except (ValueError, TypeError, KeyError):
        return "another process"
