"""The devices themselves: how batches get there, where their random stream is."""

from __future__ import annotations

import copy
import dataclasses
import resource
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from loopwright.protocols import DeviceStream


class Cpu:
    """The host's processor: nothing is moved, and torch's CPU stream is its own."""

    torch_device = torch.device("cpu")
    is_host = True
    sum_dtype = torch.float64
    stream: DeviceStream | None = None

    def peak_memory_bytes(self) -> int:
        """The most memory that this process has held at once."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # kilobytes, but on macOS bytes

    def move(self, batch: Any) -> Any:
        """The batch itself."""
        return batch


class CudaGpu:
    """One CUDA (or ROCm) device of this process.

    Args:
        index: its number on this machine.
    """

    is_host = False
    sum_dtype = torch.float64

    def __init__(self, index: int) -> None:
        self.torch_device = torch.device("cuda", index)
        self.stream: DeviceStream | None = _CudaStream(self.torch_device)

    def peak_memory_bytes(self) -> int:
        """The most memory that tensors of this process have taken at once."""
        return torch.cuda.max_memory_allocated(self.torch_device)

    def move(self, batch: Any) -> Any:
        """The batch with every tensor in it on the GPU; pinned memory is copied without waiting."""
        return move_tensors(batch, self.torch_device)


class MpsGpu:
    """The GPU of an Apple chip, which has no float64."""

    is_host = False
    sum_dtype = torch.float32
    torch_device = torch.device("mps")

    def __init__(self) -> None:
        self.stream: DeviceStream | None = _MpsStream()

    def peak_memory_bytes(self) -> int:
        """The memory that torch's driver holds now, as a peak is not kept."""
        return torch.mps.driver_allocated_memory()

    def move(self, batch: Any) -> Any:
        """The batch with every tensor in it on the GPU."""
        return move_tensors(batch, self.torch_device)


def move_tensors(batch: Any, device: torch.device) -> Any:
    """``batch`` with every tensor in its mappings, lists, tuples and dataclasses on ``device``.

    What has a ``to`` of its own is asked; anything else stays as it is.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if hasattr(batch, "to"):  # such as a PackedSequence, or a batch class of the user's
        return batch.to(device)
    if isinstance(batch, dict):
        moved = copy.copy(batch)
        moved.update({key: move_tensors(value, device) for key, value in batch.items()})
        return moved
    if isinstance(batch, Mapping):
        return {key: move_tensors(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move_tensors(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(move_tensors(value, device) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch) if field.init}
        return dataclasses.replace(batch, **{name: move_tensors(value, device) for name, value in values.items()})
    return batch


class _CudaStream:
    def __init__(self, device: torch.device) -> None:
        self._device = device

    def get_state(self) -> Tensor:
        return torch.cuda.get_rng_state(self._device)

    def set_state(self, state: Tensor) -> None:
        torch.cuda.set_rng_state(state, self._device)

    def seed(self, seed: int) -> None:
        with torch.cuda.device(self._device):
            torch.cuda.manual_seed(seed)


class _MpsStream:
    def get_state(self) -> Tensor:
        return torch.mps.get_rng_state()

    def set_state(self, state: Tensor) -> None:
        torch.mps.set_rng_state(state)

    def seed(self, seed: int) -> None:
        torch.mps.manual_seed(seed)
