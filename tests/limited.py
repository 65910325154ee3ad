"""`limited`: calls a function in a child process with limits on time and memory, for tests of attacks."""

from __future__ import annotations

import multiprocessing
import re
import resource
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

_STATUS = Path("/proc/self/status")


def limited(
    function: Callable[..., Result], *arguments: Any, timeout_seconds: float = 60.0, num_bytes: int = 1 << 30
) -> Result:
    """Return the result of a call in a forked process. An attack that succeeds fails the test, and nothing else.

    Args:
        function: function whose result can be pickled.
        arguments: positional arguments of the function.
        timeout_seconds: time after which the process is killed, also on a busy machine much more than it needs.
        num_bytes: memory that the process may allocate in addition to the memory of this process. It is limited on
            Linux only.

    Raises:
        AssertionError: if the process did not end in time, or if it died.
        Exception: the exception that the function raised.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns if a process with threads is forked
        process = context.Process(target=_call, args=(theirs, num_bytes, function, arguments), daemon=True)
        process.start()
    theirs.close()
    try:
        assert ours.poll(timeout_seconds), f"{function.__name__}: still running after {timeout_seconds:g} s"
        try:
            is_result, value = ours.recv()
        except EOFError:
            process.join()
            raise AssertionError(f"{function.__name__}: died with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()
    if not is_result:
        raise value
    found: Result = value
    return found


def _call(connection: Connection, num_bytes: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if _STATUS.exists():
        used = re.search(r"VmData:\s+(\d+) kB", _STATUS.read_text())
        assert used is not None
        limit = int(used[1]) * 1024 + num_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        sent = (True, function(*arguments))
    except Exception as error:  # noqa: BLE001  (raised again in the parent)
        error.__cause__ = error.__context__ = None  # they may not be picklable
        sent = (False, error)
    connection.send(sent)
