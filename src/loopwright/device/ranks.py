"""`Alone` and `Together`: the implementations of `Ranks` for one process, and for several processes."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from loopwright.device.world import World
from loopwright.errors import PeerError, on_one_line

# Backends of torch.distributed by device type. gloo sends the tensors on the CPU, also in a run on a GPU.
_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}


class Alone:
    """The `Ranks` of a run in one process. A sum equals its input. Gathered data are the data of this process."""

    rank = 0
    world_size = 1
    local_rank = 0

    def add(self, values: Tensor) -> Done:
        """Return a completed sum. ``values`` is not changed, because it equals the sum over one process."""
        return Done()

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Return a list with ``data`` as its only entry."""
        return [data]

    def share_bytes(self, data: bytes | None) -> bytes:
        """Return ``data``, because this process is process 0.

        Raises:
            ValueError: if ``data`` is None.
        """
        if data is None:
            raise ValueError("share_bytes: expected bytes, because this is process 0.")
        return data

    def leave(self) -> None:
        """Do nothing, because there is no process group."""


class Done:
    """A sum that is complete when it is created."""

    def wait(self) -> None:
        """Return immediately, because the sum is complete."""


class Together:
    """The `Ranks` of a run in several processes, which communicate through a process group of torch.distributed.

    If this process has already joined a process group, that group is used. Otherwise, the constructor joins a new group
    and waits until all processes have joined. This process leaves the new group when it exits.

    In processes other than process 0, log messages of Loopwright below the level ERROR are dropped, because process 0
    logs the same messages.

    Args:
        world: number of processes and index of this process.
        device_type: type of the device in torch, such as "cuda".
        timeout_seconds: longest wait for the other processes in one communication, in seconds. A longer wait raises an
            error. Not used for an existing process group.

    Raises:
        PeerError: if this process cannot join the process group.
    """

    def __init__(self, world: World, device_type: str = "cpu", timeout_seconds: float = 600) -> None:
        self.rank = world.rank
        self.world_size = world.world_size
        self.local_rank = world.local_rank
        if world.rank:
            logging.getLogger("loopwright").setLevel(logging.ERROR)
        self._host: dist.ProcessGroup | None = None  # None: the default group of torch.distributed
        if dist.is_initialized():
            if "gloo" not in str(dist.get_backend_config()):  # the existing group cannot send tensors on the CPU
                self._host = dist.new_group(backend="gloo")
            return
        assert world.address is not None, "a world of several processes has an address"
        host, port = world.address
        with _naming("join the other processes"):
            dist.init_process_group(
                _BACKENDS[device_type],
                init_method="env://" if world.launcher == "torchrun" else f"tcp://{host}:{port}",
                rank=world.rank,
                world_size=world.world_size,
                timeout=timedelta(seconds=timeout_seconds),
            )
        atexit.register(self.leave)

    def add(self, values: Tensor) -> _Sum:
        """Start to sum ``values`` over the processes, in place.

        Raises:
            PeerError: if another process has ended.
        """
        with _naming("start a sum over the processes"):
            group = self._host if values.device.type == "cpu" else None
            return _Sum(dist.all_reduce(values, group=group, async_op=True))

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Return the data of all processes in the order of their ranks. Every process gets the same list.

        Raises:
            PeerError: if another process has ended.
        """
        own = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        with _naming("gather data of the processes"):
            dist.all_gather(lengths, torch.tensor([len(data)]), group=self._host)
            longest = max(int(length) for length in lengths)
            if not longest:
                return [b""] * self.world_size
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(data)] = own
            gathered = [torch.empty_like(padded) for _ in range(self.world_size)]
            dist.all_gather(gathered, padded, group=self._host)
        return [each[: int(length)].numpy().tobytes() for each, length in zip(gathered, lengths, strict=True)]

    def share_bytes(self, data: bytes | None) -> bytes:
        """Return the data of process 0 in every process. The other processes pass None.

        Raises:
            PeerError: if another process has ended.
        """
        length = torch.tensor([0 if data is None else len(data)])
        with _naming("share data of process 0"):
            dist.broadcast(length, src=0, group=self._host)
            if not int(length):
                return b""
            shared = torch.empty(int(length), dtype=torch.uint8)
            if data is not None:
                shared.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            dist.broadcast(shared, src=0, group=self._host)
        return shared.numpy().tobytes()

    def leave(self) -> None:
        """Leave the process group. Errors are ignored, because another process may have left it already."""
        atexit.unregister(self.leave)
        with suppress(Exception):
            if dist.is_initialized():
                dist.destroy_process_group()


class _Sum:
    """A sum over several processes, which may still be in progress."""

    def __init__(self, work: dist.Work | None) -> None:
        self._work = work

    def wait(self) -> None:
        """Wait until the tensor contains the sum.

        Raises:
            PeerError: if another process has ended.
        """
        if self._work is not None:
            with _naming("sum over the processes"):
                self._work.wait()


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Convert an error of the communication into a `PeerError`."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        cause = on_one_line(f"{type(error).__name__}: {error}", 200)
        raise PeerError(f"Could not {what}, because another process has ended or does not answer ({cause}).") from error


# Substrings of error messages of torch. `DistributedDataParallel` raises these errors if another process has ended.
_PEER_TEXTS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Application timeout",
    "Timed out waiting",
    "Socket Timeout",
    "connectFullMesh failed",
    "NCCL communicator was aborted",
    "remote process exited",
)


def is_peer_error(error: BaseException) -> bool:
    """Return whether an error, or an error among its causes, is a consequence of the end of another process."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, PeerError):
            return True
        if isinstance(found, RuntimeError) and any(text in str(found) for text in _PEER_TEXTS):
            return True
        found = found.__cause__
    return False
