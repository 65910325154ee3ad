"""Functions that read the recorded environments of runs, and prepare them for a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopwright.records.series import read_mapping

ENVIRONMENT_FILE = "environment.json"
# Environment variables that influence which kernels the libraries of torch choose. Earlier versions of Loopwright did
# not record these variables, and did not record `hardware.cpu_capability`.
KERNEL_VARIABLES = (
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
_LATER = ("loopwright", "source")  # names that earlier versions did not record


def read_environment(directory: Path) -> dict[str, Any]:
    """Return the recorded environment of a run, or an empty dict if the run recorded no environment.

    Raises:
        CheckpointError: if the file cannot be read; see `read_mapping`.
    """
    return read_mapping(directory / ENVIRONMENT_FILE)


def comparable(environments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return copies of environments without the values that cannot change the results of a run.

    An environment may have been recorded by an earlier version of Loopwright. Values that this version did not record
    are removed from all copies.
    """
    hardware = [section(each, "hardware") for each in environments]
    left_out: tuple[str, ...] = _OF_THE_JOB
    if any("cpu_capability" not in each for each in hardware):
        left_out += KERNEL_VARIABLES
        for each in hardware:
            each.pop("cpu_capability", None)
    names = {name for each in hardware if isinstance(name := each.get("cpu"), str)}
    for each in hardware:  # earlier versions recorded only the name of the processor
        each["cpu"] = next(
            (name for name in names if str(each.get("cpu")).startswith(f"{name}, family ")), each.get("cpu")
        )
    missing = [name for name in _LATER if any(name not in each for each in environments)]
    copies = []
    for environment, part in zip(environments, hardware, strict=True):
        kept = {name: value for name, value in environment.items() if name not in missing}
        variables = {name: value for name, value in section(environment, "variables").items() if name not in left_out}
        copies.append({**kept, "hardware": part, "variables": variables})
    return copies


def section(environment: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a copy of a mapping in an environment; empty if the value is not a mapping."""
    found = environment.get(name)
    return dict(found) if isinstance(found, Mapping) else {}
