"""`warn_about_space`: compares the size of all checkpoints of a sweep with the free space of the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from loopwright.experiment.console.messages import complain
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.job_checker import JobChecker

_BYTES_PER_PARAMETER = 12  # of a weight in float32, and of two tensors of an optimizer such as AdamW
_MANY = 10  # assumed number of checkpoints of a job that keeps all
_GIB = float(1 << 30)


def warn_about_space(job: Job, num_jobs: int, directory: Path, trust: Trust) -> None:
    """Print one warning if the checkpoints of all jobs may need more space than is free.

    The number of bytes is an estimate from the number of parameters of one job. It is unknown for a model of a trusted
    package, which is not built before its job runs.

    Args:
        job: settled job.
        num_jobs: number of jobs of the sweep.
        directory: directory of the sweep.
        trust: packages that the user trusts.
    """
    needed = checkpoint_bytes(job, trust) * num_jobs
    free = shutil.disk_usage(directory).free
    if needed > free:
        problem = f"the checkpoints of {num_jobs} jobs need about {needed / _GIB:.3g} GiB"
        complain(f"{directory}: {problem}, {free / _GIB:.3g} GiB are free; use checkpoint.keep_last=1, or fewer jobs.")


def checkpoint_bytes(job: Job, trust: Trust) -> int:
    """Return the estimated size of the checkpoints that one job keeps; 0 if it is unknown."""
    section = job.config.get("checkpoint")
    num_parameters = JobChecker(trust, builds_trusted=False).num_parameters(job)
    if num_parameters is None or not isinstance(section, dict):
        return 0
    keep_last = section.get("keep_last", _MANY)
    num_kept = keep_last if type(keep_last) is int else _MANY
    return num_parameters * _BYTES_PER_PARAMETER * (num_kept + 1)  # and the best checkpoint
