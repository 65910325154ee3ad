"""`Device`, the device settings of a run, and `open_device`, which returns the device object for these settings."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from loopwright.device.accelerator import Cpu, CudaGpu, MpsGpu
from loopwright.errors import check_count, did_you_mean, refuse, refuse_type
from loopwright.protocols import Accelerator

# No machine has more threads than its number of CPUs, and only few machines have a thousand CPUs.
MAX_THREADS = max(1_024, os.cpu_count() or 1)
# Below this number of parameters, a second thread saved at most 10 % of the time of a step for each measured model, and
# on a busy machine it made runs up to 16 times slower. The number was measured once with bench/threads.py. It is not
# measured again for each run, because the number of threads changes the rounding of results.
FEW_PARAMETERS = 25_000
KINDS = ("auto", "cpu", "gpu", "mps")


@dataclass(frozen=True, slots=True)
class Device:
    """Device settings of a run.

    Args:
        kind: "cpu", "gpu" (CUDA or ROCm), "mps", or "auto". "auto" chooses a GPU if available, else MPS, else the CPU.
        num_processes: number of processes that share the work; this version supports only 1.
        num_threads: number of threads for operations on the CPU; None: `choose_num_threads` chooses the number. A run
            records the number, because rounding in the results depends on it. The command ``loopwright`` applies the
            number to its process; the `Trainer` does not.

    Raises:
        SettingError: if ``kind`` is unknown, a count is not an integer of at least 1, ``num_processes`` is not 1, or
            ``num_threads`` is larger than 1,024 and than the number of CPUs.
    """

    kind: str = "auto"
    num_processes: int = 1
    num_threads: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.kind not in KINDS:
            raise refuse("kind", self.kind, f"one of {', '.join(KINDS)}", did_you_mean(str(self.kind), KINDS).strip())
        if check_count("num_processes", self.num_processes) > 1:
            raise refuse("num_processes", self.num_processes, "1", "several processes are not supported yet")
        if self.num_threads is not None:
            check_count("num_threads", self.num_threads, most=MAX_THREADS)


def choose_num_threads(device: Device, num_parameters: int | None) -> int:
    """Return the number of threads for operations on the CPU.

    Args:
        device: device settings of the run.
        num_parameters: number of parameters of the model; None: unknown.

    Returns:
        ``device.num_threads`` if it is given. Otherwise 1 for a model with fewer than 25,000 parameters on the CPU, and
        torch's number of threads for every other run.
    """
    if device.num_threads is not None:
        return device.num_threads
    is_small = num_parameters is not None and num_parameters < FEW_PARAMETERS
    return 1 if is_small and resolve_kind(device.kind) == "cpu" else torch.get_num_threads()


def open_device(device: str | torch.device | Device) -> Accelerator:
    """Return the accelerator object for ``device`` on this machine.

    Args:
        device: `Device` settings, a value of ``Device.kind``, a torch device, or the name of a torch device, such as
            "cuda:1".

    Raises:
        SettingError: if the name is unknown, or the device is not available on this machine.
    """
    if isinstance(device, Device):
        device = device.kind
    elif not isinstance(device, str | torch.device):
        raise refuse_type("device", device, f"one of {', '.join(KINDS)}, or a torch device")
    if isinstance(device, str):
        device = resolve_kind(device)
    try:
        chosen = torch.device("cuda" if device == "gpu" else device)
    except RuntimeError:
        remedy = did_you_mean(str(device), KINDS).strip()
        raise refuse("device", device, f"one of {', '.join(KINDS)}, or a torch device", remedy) from None
    if chosen.type == "cpu":
        return Cpu()
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise refuse("device", str(device), "a device of this machine", "no GPU is available: use cpu or auto")
        return CudaGpu(chosen.index if chosen.index is not None else torch.cuda.current_device())
    if chosen.type == "mps":
        if not torch.backends.mps.is_available():
            raise refuse("device", str(device), "a device of this machine", "MPS is not available: use cpu or auto")
        return MpsGpu()
    raise refuse("device", str(device), f"one of {', '.join(KINDS)}")


def resolve_kind(kind: str) -> str:
    """Return the kind that "auto" chooses on this machine, or any other kind unchanged. No device is opened."""
    if kind != "auto":
        return kind
    return "gpu" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def is_auto(device: str | torch.device | Device) -> bool:
    """Return whether ``device`` leaves the choice of the device to "auto"."""
    return (device.kind if isinstance(device, Device) else device) == "auto"
