"""Where a run ran: packages, Python, torch, hardware, threads, and the state of the code."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

# Names whose values a run depends on; no other value of the environment is ever recorded.
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "RANK",
    "SLURM_JOB_ID",
    "WORLD_SIZE",
)
_GIT_SECONDS = 20.0


def environment(num_threads: int, git: dict[str, Any]) -> dict[str, Any]:
    """What ``environment.json`` holds.

    Args:
        num_threads: threads of the CPU's operations in this run.
        git: what `git_state` found.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "packages": _packages(),
        "hardware": _hardware(),
        "num_threads": num_threads,
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "git": git,
    }


def git_state(directory: Path) -> tuple[dict[str, Any], str | None]:
    """The commit of the repository around ``directory`` and its uncommitted changes; nothing where there is none."""
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "is_dirty": None}, None
    diff = _git(directory, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--binary", "HEAD")
    return {"commit": commit.strip(), "is_dirty": None if diff is None else bool(diff)}, diff


def _git(directory: Path, *arguments: str) -> str | None:
    # Nothing that the repository's own settings name is run: no monitor, no hooks, no external diff.
    command = ["git", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "-C", str(directory)]
    try:
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            check=True,
            timeout=_GIT_SECONDS,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", errors="replace")


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
    return {"machine": platform.machine(), "cpu": _cpu_name(), "num_cpus": os.cpu_count(), "accelerators": devices}


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
