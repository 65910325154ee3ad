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
from loopwright.records.environments import ENVIRONMENT_FILE, KERNEL_VARIABLES, comparable, read_environment, section

# Recorded environment variables. The variables in `KERNEL_VARIABLES` are recorded too.
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "RANK",
    "SLURM_JOB_ID",
)
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
        "variables": {name: os.environ[name] for name in (*_VARIABLES, *KERNEL_VARIABLES) if name in os.environ},
        "git": git,
        "source": source_digests(trust),
    }


def environment_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences that may change the results of a run, one line each: ``torch: 2.13.0 -> 2.14.0``."""
    before, now = comparable([before, now])
    lines = [
        f"{name}: {before.get(name)} -> {now.get(name)}"
        for name in ("loopwright", "python", "platform", "torch", "num_threads")
        if before.get(name) != now.get(name)
    ]
    for part in ("packages", "hardware", "variables", "git", "source"):
        old, new = section(before, part), section(now, part)
        lines += [
            f"{part}.{name}: {old.get(name)} -> {new.get(name)}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    return lines


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
