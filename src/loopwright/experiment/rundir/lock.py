"""One process at a time works on a run directory."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, SaveError

LOCK_FILE = ".lock"

_log = logging.getLogger("loopwright")


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Hold a run directory while the context is open.

    The lock is the system's, on the file ``.lock``: it is gone with the process that holds it, however that ends, and
    processes forked meanwhile do not share it. The file itself says who holds it, and stays.

    Raises:
        CheckpointError: naming the process that holds it.
        SaveError: if the directory cannot be written to.
    """
    path = directory / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        _lock(descriptor, directory)
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
            raise CheckpointError(
                f"{directory}: is being run by {_describe(descriptor)}; wait for it to end."
            ) from None
        _log.warning("%s: cannot be locked (%s); see to it that no other process runs it.", directory, error.strerror)


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
