"""`Slot`: a place for one job at a time, with the devices that the job may use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loopwright.errors import refuse

# Environment variables that select the devices of a process, for each kind of accelerator. If several are set, the
# first one that is set is used.
_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "cuda": ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    "xpu": ("ZE_AFFINITY_MASK",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place for one job at a time.

    Attributes:
        name: name of its devices, such as "gpu 1"; "" if it has no devices of its own.
        environment: environment variables that select the devices.
    """

    name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def make_slots(
    kind: str,
    devices: Any,
    jobs_per_device: int,
    num_parallel: int | str,
    *,
    num_visible: int,
    num_cpu_slots: int,
    devices_per_job: int = 1,
    environ: Mapping[str, str] = os.environ,
) -> list[Slot]:
    """Return the slots of a sweep.

    Args:
        kind: kind of the device that the jobs use, such as "cpu" or "cuda".
        devices: setting ``sweep.devices``.
        jobs_per_device: setting ``sweep.jobs_per_device``.
        num_parallel: setting ``sweep.num_parallel``.
        num_visible: number of accelerators that this process sees.
        num_cpu_slots: number of slots for jobs on the CPU with ``num_parallel=auto``.
        devices_per_job: number of devices of a slot with ``devices=auto``, for jobs of several processes.
        environ: environment variables of this process.

    Raises:
        SettingError: if there are fewer slots than jobs at a time.
    """
    if kind not in _VARIABLES:
        if devices != "auto":
            raise refuse("sweep.devices", devices, f"auto with jobs on {kind}")
        return [Slot()] * (num_cpu_slots if num_parallel == "auto" else int(num_parallel))
    starts = range(0, num_visible - devices_per_job + 1, devices_per_job)
    groups = [list(range(start, start + devices_per_job)) for start in starts]
    entries = groups if devices == "auto" else list(devices)
    slots = [_slot(kind, each if isinstance(each, list) else [each], environ) for each in entries]
    slots = [slot for slot in slots for _ in range(jobs_per_device)]
    if num_parallel == "auto":
        return slots
    if int(num_parallel) > len(slots):
        what = f"at most {len(slots)}, the number of slots of the visible devices"
        raise refuse("sweep.num_parallel", num_parallel, what, "use sweep.jobs_per_device for several jobs on a device")
    return slots[: int(num_parallel)]


def _slot(kind: str, chosen: Sequence[int | str], environ: Mapping[str, str]) -> Slot:
    """Return a slot with the chosen devices. If a variable restricts this process, numbers index its list."""
    names = _VARIABLES[kind]
    variable = next((name for name in names if environ.get(name)), names[0])
    visible = environ.get(variable, "").split(",") if environ.get(variable) else None
    words = []
    for device in chosen:
        if isinstance(device, int) and visible is not None:
            if device >= len(visible):
                raise refuse(
                    "sweep.devices", device, f"a number below {len(visible)}, as {variable}={','.join(visible)}"
                )
            words.append(visible[device].strip())
        else:
            words.append(str(device))
    name = f"{'gpu' if kind == 'cuda' else kind} {','.join(map(str, chosen))}"
    return Slot(name=name, environment={variable: ",".join(words)})
