"""Functions that record the environment of a run and compare two environments.

An environment consists of the versions of all packages, the hardware, the number of threads, some environment
variables, the git commit, and digests of source code.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from loopwright import __version__
from loopwright.device import MAX_THREADS
from loopwright.errors import CheckpointError
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.rundir.source_digests import source_digests
from loopwright.records import read_mapping

# Recorded environment variables. The variables in `_OF_KERNELS` are recorded too.
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "RANK",
    "SLURM_JOB_ID",
)
# Environment variables that influence which kernels the libraries of torch choose. Earlier versions of Loopwright did
# not record these variables, and did not record `hardware.cpu_capability`.
_OF_KERNELS = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_NUM_THREADS",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
_OF_THE_JOB = ("RANK", "SLURM_JOB_ID")  # the results of a run do not depend on these variables
ENVIRONMENT_FILE = "environment.json"
_CPU_NUMBERS = (("family", "cpu family"), ("model", "model"), ("stepping", "stepping"))


def environment(num_threads: int, git: dict[str, Any], trust: Trust) -> dict[str, Any]:
    """Return the content of ``environment.json``.

    Args:
        num_threads: number of threads for CPU operations in this run.
        git: the mapping that `git_state` returns.
        trust: packages that the user trusts. Digests of the source code of these packages are recorded.
    """
    return {
        "loopwright": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "packages": _packages(),
        "hardware": _hardware(),
        "num_threads": num_threads,
        "variables": {name: os.environ[name] for name in (*_VARIABLES, *_OF_KERNELS) if name in os.environ},
        "git": git,
        "source": source_digests(trust),
    }


def environment_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences that may change the results of a run, one line each: ``torch: 2.13.0 -> 2.14.0``."""
    before, now = comparable(before, now)
    lines = [
        f"{name}: {before.get(name)} -> {now.get(name)}"
        for name in ("loopwright", "python", "platform", "torch", "num_threads")
        if before.get(name) != now.get(name)
    ]
    for section in ("packages", "hardware", "variables", "git", "source"):
        old, new = _section(before, section), _section(now, section)
        lines += [
            f"{section}.{name}: {old.get(name)} -> {new.get(name)}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    return lines


def comparable(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return copies of two environments without the values that cannot change the results of a run.

    ``before`` may have been recorded by an earlier version of Loopwright. Values that this version did not record are
    removed from the copy of ``now``.
    """
    sides = [dict(before), dict(now)]
    hardware, own = (_section(side, "hardware") for side in sides)
    left_out: tuple[str, ...] = _OF_THE_JOB
    if "cpu_capability" not in hardware:
        own.pop("cpu_capability", None)
        left_out += _OF_KERNELS
    if str(own.get("cpu")).startswith(f"{hardware.get('cpu')}, family "):
        own["cpu"] = hardware.get("cpu")  # earlier versions recorded only the name of the processor
    for name in ("loopwright", "source"):
        if name not in before:
            sides[1].pop(name, None)
    for side, part in zip(sides, (hardware, own), strict=True):
        kept = {name: value for name, value in _section(side, "variables").items() if name not in left_out}
        side |= {"hardware": part, "variables": kept}
    return sides[0], sides[1]


def _section(environment: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = environment.get(name)
    return dict(section) if isinstance(section, Mapping) else {}


def read_environment(directory: Path) -> dict[str, Any]:
    """Return the recorded environment of a run, or an empty dict if the run recorded no environment."""
    return read_mapping(directory / ENVIRONMENT_FILE)


def recorded_threads(directory: Path) -> int:
    """Return the recorded number of CPU threads, or torch's current number if no number was recorded.

    Raises:
        CheckpointError: if the recorded number is greater than `MAX_THREADS`.
    """
    recorded = read_environment(directory).get("num_threads")
    if type(recorded) is not int or recorded < 1:
        return torch.get_num_threads()
    if recorded > MAX_THREADS:
        file = directory / ENVIRONMENT_FILE
        raise CheckpointError(f"{file}: num_threads={recorded}: expected a whole number from 1 to {MAX_THREADS:,}.")
    return recorded


def _packages() -> dict[str, str]:
    found = {str(package.metadata["Name"]): package.version for package in distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _hardware() -> dict[str, Any]:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    devices = []
    if accelerator is not None:
        module = torch.get_device_module(accelerator)
        name = getattr(module, "get_device_name", None)
        devices = [str(name(i)) if name else accelerator.type for i in range(torch.accelerator.device_count())]
    return {
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # torch chooses kernels by this instruction set
        "num_cpus": os.cpu_count(),
        "accelerators": devices,
    }


def _cpu_name() -> str:
    """Return the name, family, model and stepping of the processor.

    Processors with equal names can differ in family, model and stepping, and libraries choose kernels by these numbers.
    """
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    if "model name" not in found:
        return platform.processor()
    numbers = [f"{key} {found[name]}" for key, name in _CPU_NUMBERS if name in found]
    return ", ".join([found["model name"], *numbers])
