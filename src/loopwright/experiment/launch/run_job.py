"""`run_job`: runs a checked job in this process, or starts several processes for the job."""

from __future__ import annotations

from loopwright.device import Device
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.launch.agent import run_processes
from loopwright.experiment.launch.rank import run_rank
from loopwright.experiment.runs.ending import RunRequest
from loopwright.experiment.runs.run import carry_out, opened
from loopwright.protocols import Ranks


def starts_processes(job: Job, ranks: Ranks) -> bool:
    """Return True if this process starts several processes for the job; False if this process trains."""
    assert isinstance(job.device, Device), "settle() builds the device settings"
    return ranks.world_size == 1 and job.device.num_processes > 1


def run_job(request: RunRequest, ranks: Ranks) -> int:
    """Run a checked job, and return the exit code of the run.

    No process may hold the lock of the run directory.

    Args:
        request: run to carry out. If several processes are started, each executes the command line ``request.words``.
        ranks: processes of the run, including this process.
    """
    if ranks.world_size > 1:
        return run_rank(request, ranks)
    if starts_processes(request.job, ranks):
        device = request.job.device
        assert isinstance(device, Device)
        return run_processes(request, device)
    with opened(request.directory, request.trust):
        return carry_out(request).exit_code
