"""Accelerator classes for the CPU, CUDA and MPS, and `move_tensors`, which moves batches to a device."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path
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
    name = "cpu"

    def __init__(self) -> None:
        self._earlier_peak_bytes = 0  # before the last reset

    def peak_memory_bytes(self) -> int:
        """Return the peak resident memory of this process in bytes."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, else in KiB
        return max(self._earlier_peak_bytes, peak * unit)

    def take_peak_memory(self) -> dict[str, int]:
        """Return the peak resident memory of this process since the last call. Only Linux can measure it."""
        total = self.peak_memory_bytes()
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
            (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, and also ru_maxrss
        except (OSError, ValueError):
            return {}
        self._earlier_peak_bytes = max(total, int(peak) * 1024)
        return {"peak_process_bytes": int(peak) * 1024}

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
        self._earlier_peak_bytes = 0  # before the last reset

    @property
    def name(self) -> str:
        """The name that the driver reports."""
        return torch.cuda.get_device_name(self.torch_device)

    def peak_memory_bytes(self) -> int:
        """Return the peak memory of this process's tensors on this device in bytes."""
        return max(self._earlier_peak_bytes, torch.cuda.max_memory_allocated(self.torch_device))

    def take_peak_memory(self) -> dict[str, int]:
        """Return the peak of the tensors, and of the memory that torch reserves for tensors, since the last call."""
        peaks = {
            "peak_allocated_bytes": torch.cuda.max_memory_allocated(self.torch_device),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(self.torch_device),
        }
        self._earlier_peak_bytes = self.peak_memory_bytes()
        torch.cuda.reset_peak_memory_stats(self.torch_device)
        return peaks

    def move(self, batch: Any) -> Any:
        """Move every tensor in ``batch`` to the GPU. Tensors in pinned memory are copied asynchronously."""
        return move_tensors(batch, self.torch_device)


class MpsGpu:
    """The GPU of an Apple chip, which has no float64."""

    is_host = False
    sum_dtype = torch.float32
    torch_device = torch.device("mps")
    name = "mps"

    def __init__(self) -> None:
        self.stream: DeviceStream | None = _MpsStream()

    def peak_memory_bytes(self) -> int:
        """Return the bytes that the Metal driver allocates for this process now; torch does not record a peak."""
        return torch.mps.driver_allocated_memory()

    def take_peak_memory(self) -> dict[str, int]:
        """Return an empty mapping, as torch does not record a peak."""
        return {}

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
