"""Functions that run a test in several processes that train together, for tests."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

LIMIT_SECONDS = 120.0


class Died(RuntimeError):
    """A process of `on_ranks` raised or was killed."""


def on_ranks(world_size: int, act: Callable[..., Any], *args: Any) -> list[Any]:
    """Call ``act(rank, *args)`` in ``world_size`` forked processes, which gloo connects. Return the results by rank.

    Raises:
        Died: if a process raises, exits with a code other than 0, or does not end in time. The message has the
            tracebacks of all processes.
    """
    results = outcomes(world_size, act, *args)
    failed = [f"rank {rank}: {text}" for rank, (is_ok, text) in enumerate(results) if not is_ok]
    if failed:
        raise Died("\n".join(failed))
    return [value for _, value in results]


def outcomes(world_size: int, act: Callable[..., Any], *args: Any) -> list[tuple[bool, Any]]:
    """Call ``act`` as `on_ranks` does. For each rank, return (True, its result) or (False, a traceback or a reason)."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    sys.stdout.flush()
    sys.stderr.flush()
    children = [_start(rank, world_size, port, act, args) for rank in range(world_size)]
    deadline = time.monotonic() + LIMIT_SECONDS
    results: list[tuple[bool, Any]] = []
    for process_id, reader in children:
        os.set_blocking(reader, False)
        data = b""
        while True:
            try:
                chunk = os.read(reader, 1 << 20)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.kill(process_id, signal.SIGKILL)
                time.sleep(0.005)
                continue
            if not chunk:
                break
            data += chunk
        os.close(reader)
        _, status = os.waitpid(process_id, 0)
        code = os.waitstatus_to_exitcode(status)
        results.append(pickle.loads(data) if data else (False, f"exit code {code}"))
    return results


def _start(rank: int, world_size: int, port: int, act: Callable[..., Any], args: tuple[Any, ...]) -> tuple[int, int]:
    reader, writer = os.pipe()
    process_id = os.fork()
    if process_id:
        os.close(writer)
        return process_id, reader
    try:
        os.close(reader)
        signal.alarm(int(LIMIT_SECONDS))
        os.environ |= {"WORLD_SIZE": str(world_size), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.set_num_threads(1)
        try:
            result = (True, act(rank, *args))
        except BaseException:  # noqa: BLE001
            result = (False, traceback.format_exc())
        with os.fdopen(writer, "wb") as file:
            pickle.dump(result, file)
    finally:
        os._exit(0)
