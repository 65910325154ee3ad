"""Accelerator classes for the CPU, CUDA and MPS, and `move_tensors`, which moves batches to a device."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch
from torch import Tensor

from loopwright.precision import map_tensors
from loopwright.protocols import DeviceStream


class Cpu:
    """The CPU. Batches are not moved, and there is no random stream besides torch's CPU generator."""

    torch_device = torch.device("cpu")
    is_host = True
    sum_dtype = torch.float64
    stream: DeviceStream | None = None

    def peak_memory_bytes(self) -> int:
        """Return the peak resident memory of this process in bytes."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # ru_maxrss is in bytes on macOS, else in KiB

    def move(self, batch: Any) -> Any:
        """Return ``batch`` unchanged."""
        return batch


class CudaGpu:
    """A CUDA or ROCm device.

    Args:
        index: index of the device on this machine.
    """

    is_host = False
    sum_dtype = torch.float64

    def __init__(self, index: int) -> None:
        self.torch_device = torch.device("cuda", index)
        self.stream: DeviceStream | None = _CudaStream(self.torch_device)

    def peak_memory_bytes(self) -> int:
        """Return the peak memory of this process's tensors on this device in bytes."""
        return torch.cuda.max_memory_allocated(self.torch_device)

    def move(self, batch: Any) -> Any:
        """Move every tensor in ``batch`` to the GPU. Tensors in pinned memory are copied asynchronously."""
        return move_tensors(batch, self.torch_device)


class MpsGpu:
    """The GPU of an Apple chip, which has no float64."""

    is_host = False
    sum_dtype = torch.float32
    torch_device = torch.device("mps")

    def __init__(self) -> None:
        self.stream: DeviceStream | None = _MpsStream()

    def peak_memory_bytes(self) -> int:
        """Return the bytes that the Metal driver allocates for this process now; torch does not record a peak."""
        return torch.mps.driver_allocated_memory()

    def move(self, batch: Any) -> Any:
        """Move every tensor in ``batch`` to the GPU."""
        return move_tensors(batch, self.torch_device)


def move_tensors(batch: Any, device: torch.device) -> Any:
    """Move the tensors in ``batch`` to ``device``, within nested mappings, lists, tuples and dataclasses.

    Other objects with a ``to`` method are moved by calling this method. Everything else is returned unchanged.
    """
    return map_tensors(
        batch, lambda each: each.to(device, non_blocking=True) if isinstance(each, Tensor) else each.to(device)
    )


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
