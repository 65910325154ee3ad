"""`Cpu`, `Gpu` and `MpsGpu`, which implement `Accelerator`."""

from __future__ import annotations

import gc
import re
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopwright.device.copy_stream import CopyStream, move_tensors
from loopwright.device.memory_format import with_channels_last
from loopwright.precision import map_tensors
from loopwright.protocols import DeviceStream

_OUT_OF_MEMORY = ("can't allocate memory", "MPS backend out of memory")


class Cpu:
    """The CPU. Its only random stream is torch's CPU generator.

    Args:
        channels_last: whether `move` converts 4-D floating-point tensors to the memory format channels_last.
    """

    torch_device = torch.device("cpu")
    sum_dtype = torch.float64
    stream: DeviceStream | None = None
    hardware = "cpu"

    def __init__(self, *, channels_last: bool = False) -> None:
        self.changes_batches = channels_last
        self._earlier_peak_bytes = 0  # before the last reset

    @property
    def name(self) -> str:
        """The name and torch's number of threads, such as "cpu, 2 threads"."""
        num_threads = torch.get_num_threads()
        return f"cpu, {num_threads} thread{'' if num_threads == 1 else 's'}"

    def peak_memory_bytes(self) -> int:
        """Return the peak resident memory of this process in bytes."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, and in KiB on Linux
        return max(self._earlier_peak_bytes, peak * unit)

    def take_peak_memory(self) -> dict[str, int]:
        """Return the peak resident memory of this process since the last call, in bytes. Empty except on Linux."""
        total = self.peak_memory_bytes()
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
            (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, and also ru_maxrss
        except (OSError, ValueError):
            return {}
        self._earlier_peak_bytes = max(total, int(peak) * 1024)
        return {"peak_process_bytes": int(peak) * 1024}

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether an error says that this device has no more memory."""
        return is_out_of_memory(error)

    def free_memory(self) -> None:
        """Do nothing, because torch keeps no memory of the CPU."""

    def move(self, batch: Any) -> Any:
        """Return ``batch``. If ``channels_last`` is set, convert its 4-D floating-point tensors to channels_last."""
        return map_tensors(batch, with_channels_last) if self.changes_batches else batch


class Gpu:
    """A CUDA, ROCm or XPU device.

    Args:
        torch_device: torch device of the type "cuda" or "xpu", with its index on this machine.
        channels_last: whether `move` converts 4-D floating-point tensors to the memory format channels_last.
    """

    changes_batches = True

    def __init__(self, torch_device: torch.device, *, channels_last: bool = False) -> None:
        self.torch_device = torch_device
        self.stream: DeviceStream | None = _GpuStream(torch_device)
        self._module = torch.get_device_module(torch_device)
        self._copies = CopyStream(torch_device, channels_last=channels_last)
        self._earlier_peak_bytes = 0  # before the last reset
        # Every CUDA device computes in float64, but some XPU devices do not.
        has_float64 = torch_device.type == "cuda" or self._module.get_device_properties(torch_device).has_fp64
        self.sum_dtype = torch.float64 if has_float64 else torch.float32

    @property
    def name(self) -> str:
        """The torch device and the product, such as "cuda:0 (NVIDIA H200)"."""
        return f"{self.torch_device} ({self.hardware})"

    @property
    def hardware(self) -> str:
        """The product name that the driver reports, such as "NVIDIA H200"."""
        return str(self._module.get_device_name(self.torch_device))

    def peak_memory_bytes(self) -> int:
        """Return the peak memory of this process's tensors on this device in bytes."""
        return max(self._earlier_peak_bytes, int(self._module.max_memory_allocated(self.torch_device)))

    def take_peak_memory(self) -> dict[str, int]:
        """Return the peaks, in bytes since the last call, of the memory that tensors use and that torch reserves."""
        peaks = {
            "peak_allocated_bytes": self._module.max_memory_allocated(self.torch_device),
            "peak_reserved_bytes": self._module.max_memory_reserved(self.torch_device),
        }
        self._earlier_peak_bytes = self.peak_memory_bytes()
        self._module.reset_peak_memory_stats(self.torch_device)
        return peaks

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether an error says that this device has no more memory."""
        return is_out_of_memory(error)

    def free_memory(self) -> None:
        """Return memory that torch keeps for later tensors to the device."""
        gc.collect()
        self._module.empty_cache()

    def move(self, batch: Any) -> Any:
        """Move every tensor in ``batch`` to the GPU, while the GPU computes the operations that are queued already.

        The CPU does not wait for a copy from pinned memory.
        """
        return self._copies.move(batch)


class MpsGpu:
    """The GPU of an Apple chip, which has no float64.

    Args:
        channels_last: whether `move` converts 4-D floating-point tensors to the memory format channels_last.
    """

    changes_batches = True
    sum_dtype = torch.float32
    torch_device = torch.device("mps")
    name = "mps"
    hardware = "mps"

    def __init__(self, *, channels_last: bool = False) -> None:
        self.stream: DeviceStream | None = _MpsStream()
        self._channels_last = channels_last

    def peak_memory_bytes(self) -> int:
        """Return the bytes that the Metal driver now allocates for this process, because torch records no peak."""
        return torch.mps.driver_allocated_memory()

    def take_peak_memory(self) -> dict[str, int]:
        """Return an empty mapping, because torch records no peak for MPS."""
        return {}

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether an error says that this device has no more memory."""
        return is_out_of_memory(error)

    def free_memory(self) -> None:
        """Return memory that torch keeps for later tensors to the device."""
        gc.collect()
        torch.mps.empty_cache()

    def move(self, batch: Any) -> Any:
        """Move every tensor in ``batch`` to the GPU."""
        return move_tensors(batch, self.torch_device, channels_last=self._channels_last)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of torch says that a device has no more memory. The CPU has no exception class for it."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(each in text for each in _OUT_OF_MEMORY)
    )


class _GpuStream:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module = torch.get_device_module(device)

    def get_state(self) -> Tensor:
        state: Tensor = self._module.get_rng_state(self._device)
        return state

    def set_state(self, state: Tensor) -> None:
        self._module.set_rng_state(state, self._device)

    def seed(self, seed: int) -> None:
        with self._module.device(self._device):
            self._module.manual_seed(seed)


class _MpsStream:
    def get_state(self) -> Tensor:
        return torch.mps.get_rng_state()

    def set_state(self, state: Tensor) -> None:
        torch.mps.set_rng_state(state)

    def seed(self, seed: int) -> None:
        torch.mps.manual_seed(seed)
