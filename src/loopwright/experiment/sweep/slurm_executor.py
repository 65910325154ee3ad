"""Functions that use submitit: they check that it can be used, make its executor, and read the states of its jobs."""

from __future__ import annotations

import logging
import math
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from loopwright.errors import SettingError, refuse
from loopwright.experiment.sweep.settings import SweepSettings
from loopwright.experiment.sweep.slurm_queue import FOLDER, LAUNCHER

LOCAL = "local"
_LOG_LEVEL = "SUBMITIT_LOG_LEVEL"
_SAFE_PATH = "PYTHONSAFEPATH"  # variable that has the effect of python -P
_FAILURES = {
    "TIMEOUT": "out of time: Slurm ended the job before it had saved",
    "DEADLINE": "out of time: Slurm ended the job before it had saved",
    "OUT_OF_MEMORY": "out of memory: Slurm ended the job",
}


def check_slurm(settings: SweepSettings) -> None:
    """Check that submitit and Slurm are installed, and that the settings have a meaning with Slurm.

    Raises:
        SettingError: if not.
    """
    _check_installed()
    is_local = settings.slurm.executor == LOCAL
    if not is_local and which("srun") is None:
        problem = "=slurm: found no command srun; start the sweep on a machine where Slurm is installed"
        raise SettingError(LAUNCHER, f"{problem}, or try it with sweep.slurm.executor=local.")
    for name, is_default, remedy in (
        ("timeout_minutes", settings.timeout_minutes is None, "sweep.slurm.timeout_minutes"),
        ("memory_gib", settings.memory_gib is None, "sweep.slurm.memory_gib"),
        ("devices", settings.devices == "auto", "sweep.slurm.gpus"),
        ("jobs_per_device", settings.jobs_per_device == 1, "sweep.slurm.gpus"),
        ("num_parallel", is_local or settings.num_parallel == 1, "sweep.slurm.max_parallel"),
    ):
        if not is_default:
            raise refuse(f"sweep.{name}", getattr(settings, name), f"no value with {LAUNCHER}=slurm", f"use {remedy}")


def outcome_of_state(state: str) -> tuple[int, str | None]:
    """Return the exit code and the failure of a job that left no exit code, from its state in Slurm."""
    word = state.partition(" ")[0].rstrip("+")  # for example, "CANCELLED by 1000"
    if word == "CANCELLED":
        return 143, None
    return 1, _FAILURES.get(word, f"lost: its state in Slurm is {word or 'unknown'}")


def state_of(job: Any) -> str:
    """Return the state of a job in Slurm, such as "CANCELLED by 1000"; empty if ``sacct`` does not know the job."""
    return str(job.get_info(mode="force").get("State", ""))


def slurm_job(directory: Path, slurm_id: str) -> Any:
    """Return the object of submitit for a job that was submitted earlier."""
    return _submitit().SlurmJob(directory.absolute() / FOLDER, slurm_id)


def make_executor(directory: Path, sweep: SweepSettings) -> Any:
    """Return the executor of submitit with the settings of a sweep. It creates the folder for its files."""
    settings, folder = sweep.slurm, directory / FOLDER
    setup = list(settings.setup)
    # A job is asked to save this long before its time limit, but not before half of its time.
    grace_seconds = math.ceil(min(sweep.grace_seconds, settings.timeout_minutes * 30))
    python = f"{shlex.quote(sys.executable)} -P"  # the current directory may contain a module named submitit
    if settings.executor == LOCAL:
        executor = _submitit().LocalExecutor(folder, max_num_timeout=settings.max_requeues, python=python)
        executor.update_parameters(
            timeout_min=settings.timeout_minutes,
            gpus_per_node=settings.gpus,
            signal_delay_s=grace_seconds,
            setup=setup,
        )
        return executor
    executor = _submitit().SlurmExecutor(folder, max_num_timeout=settings.max_requeues, python=python)
    parameters = {
        "job_name": directory.name,
        "partition": settings.partition,
        "account": settings.account,
        "time": settings.timeout_minutes,
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": settings.cpus,
        "gpus_per_node": settings.gpus or None,
        "mem": f"{math.ceil(settings.memory_gib * 1024)}MB",
        "signal_delay_s": grace_seconds,
        "array_parallelism": settings.max_parallel,
        "setup": setup or None,
    }
    executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
    return executor


def _check_installed() -> None:
    if find_spec("submitit") is None:
        problem = "=slurm: needs submitit, which is not installed; pip install 'loopwright[slurm]'."
        raise SettingError(LAUNCHER, problem)


def _submitit() -> Any:
    """Import submitit without its configuration of `logging`, which would close the log files of this process."""
    _check_installed()
    before = os.environ.get(_LOG_LEVEL)
    os.environ[_LOG_LEVEL] = "NOCONFIG"
    try:
        module = import_module("submitit")
    finally:
        del os.environ[_LOG_LEVEL]
        if before is not None:
            os.environ[_LOG_LEVEL] = before
    logging.getLogger("submitit").setLevel(logging.CRITICAL)
    return module


@contextmanager
def submitting() -> Iterator[None]:
    """Start processes that ignore Ctrl-C and that import no module from the current directory.

    Ctrl-C in a terminal reaches all processes of the runner's group. A process inherits blocked signals. If the runner
    is itself a job of Slurm, the variables of this job must not reach the new jobs.
    """
    mask, before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}), os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        with _submitit().helpers.clean_env() if "SLURM_JOB_ID" in os.environ else nullcontext():
            yield
    finally:
        del os.environ[_SAFE_PATH]
        if before is not None:
            os.environ[_SAFE_PATH] = before
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
