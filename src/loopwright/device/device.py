"""`Device`: the settings of where a run computes, and what they come to on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from loopwright.device.accelerator import Cpu, CudaGpu, MpsGpu
from loopwright.errors import check_count, did_you_mean, refuse, refuse_type
from loopwright.protocols import Accelerator

KINDS = ("auto", "cpu", "gpu", "mps")


@dataclass(frozen=True, slots=True)
class Device:
    """Where a run computes.

    Args:
        kind: "cpu", "gpu" (CUDA or ROCm), "mps", or "auto": the best of these that is there.
        num_processes: processes that share the work; one in this version.
        num_threads: threads of the CPU's operations; None: as torch finds them. Results depend on it to rounding,
            so a run records the number. Applied where a process starts, not by the `Trainer`.

    Raises:
        SettingError: for an unknown kind, a count that is none, more than one process.
    """

    kind: str = "auto"
    num_processes: int = 1
    num_threads: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.kind not in KINDS:
            raise refuse("kind", self.kind, f"one of {', '.join(KINDS)}", did_you_mean(str(self.kind), KINDS).strip())
        if check_count("num_processes", self.num_processes) > 1:
            raise refuse("num_processes", self.num_processes, "1", "several processes are not built yet")
        if self.num_threads is not None:
            check_count("num_threads", self.num_threads)


def open_device(device: str | torch.device | Device) -> Accelerator:
    """What ``device`` comes to on this machine.

    Args:
        device: a kind of `Device`, a name that torch knows ("cuda:1"), a torch device or the settings.

    Raises:
        SettingError: if there is no such device, or it is not on this machine.
    """
    if isinstance(device, Device):
        device = device.kind
    elif not isinstance(device, str | torch.device):
        raise refuse_type("device", device, f"one of {', '.join(KINDS)}, or a torch device")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
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
