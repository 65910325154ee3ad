"""`run_sweep`: runs the jobs of a sweep one after another in this process."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Sequence
from pathlib import Path

from loopwright.device import Alone, Device, deterministic_workspace, read_world
from loopwright.errors import SettingError
from loopwright.experiment.compose.hydra_files import set_log_levels, write_hydra_files
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import complain, one_line_of, tell
from loopwright.experiment.console.tables import show
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import applied, check_jobs
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.launch.agent import run_processes
from loopwright.experiment.launch.run_job import starts_processes
from loopwright.experiment.rundir.directory import allocate, check_usable, use
from loopwright.experiment.runs.ending import Ended, RunRequest
from loopwright.experiment.runs.run import run
from loopwright.experiment.sweep.results import job_results, print_sweep, write_sweep
from loopwright.records import COMPLETE, read_summary


def run_sweep(line: CommandLine, jobs: Sequence[Job], trust: Trust) -> int:
    """Check all jobs, run the jobs one after another, and return the exit code.

    Args:
        line: command line of the sweep.
        jobs: composed jobs of the sweep.
        trust: packages that the user trusts.

    Raises:
        SettingError: for a wrong setting of any job, before the sweep directory is created.
        CheckpointError: for a checkpoint that does not exist, before the sweep directory is created.
    """
    world = read_world(os.environ)
    if world.world_size > 1:
        remedy = f"use loopwright -m device.num_processes={world.world_size} without {world.launcher}"
        raise SettingError(
            "-m", f": expected one process to sweep, {world.launcher} started {world.world_size}; {remedy}."
        )
    typed = jobs[0].directory
    if typed is not None:
        check_usable("hydra.sweep.dir", Path(typed))
    with deterministic_workspace(is_needed=any(job.settings.deterministic for job in jobs)):
        settled = check_jobs(jobs, trust)
        gc.collect()  # frees objects of the checks that are in reference cycles
        name = jobs[0].settings.name
        directory = allocate(name, is_sweep=True) if typed is None else use("hydra.sweep.dir", typed)
        ended = _run_jobs(line, settled, trust, directory)
    results = job_results(directory, jobs)
    write_sweep(directory, jobs, results)
    print_sweep(jobs, results, directory)
    interrupted = [end.exit_code for end in ended if end.state == "interrupted"]
    if interrupted:
        return max(interrupted)
    return 0 if len(ended) == len(jobs) and all(end.exit_code == 0 for end in ended) else 1


def _run_jobs(line: CommandLine, jobs: Sequence[Job], trust: Trust, directory: Path) -> list[Ended]:
    """Run the jobs in order until a job is interrupted. Return the outcome of each started job."""
    ended: list[Ended] = []
    for job in jobs:
        try:
            end = _run_job(line, job, trust, directory / str(job.number))
        except KeyboardInterrupt:  # a second signal arrived while the end of the job was being recorded
            end = Ended(state="interrupted", exit_code=130)
        except SystemExit as exit:
            end = Ended(state="interrupted", exit_code=exit.code if isinstance(exit.code, int) else 1)
        ended.append(end)
        gc.collect()  # reference cycles in callbacks may keep the objects of this job in memory
        detail = f": objective {show(end.objective)}" if end.error is None else ""
        place = directory / str(job.number)
        tell(f"job {job.number} ({job.number + 1} of {len(jobs)}) {end.state}{detail}; {place}")
        if end.error is not None:
            complain(f"job {job.number}: {end.error}")
        if end.state == "interrupted":
            if end.error is None:
                complain(f"interrupted (run directory: {directory})")
            break
    return ended


def _run_job(line: CommandLine, job: Job, trust: Trust, directory: Path) -> Ended:
    assert job.source is not None, "each job of a sweep was composed and has a source"
    flags = [*line.config_dir_flag, *line.permissions]
    words = ["loopwright", *flags, *job.source.hydra.overrides.task]  # the command that runs only this job
    request = RunRequest(job=job, directory=directory, words=words, trust=trust, is_quiet=True)
    try:
        write_hydra_files(directory, job.source, job.number)
        set_log_levels(job.source)
        if starts_processes(job, Alone()):
            return _run_processes(request)
        with applied(job):
            return run(request)
    except Exception as error:  # noqa: BLE001  (an error in one job does not end the sweep)
        end = Ended(state="failed", exit_code=1, error=one_line_of(error))
        complain(f"failed: {end.error}")
        return end


def _run_processes(request: RunRequest) -> Ended:
    """Run a job in several processes. Return its outcome, which process 0 has written to the summary."""
    device = request.job.device
    assert isinstance(device, Device), "settle() builds the device settings"
    code = run_processes(request, device)
    summary = read_summary(request.directory)
    state = {0: str(summary.get("state")), 130: "interrupted", 143: "interrupted"}.get(code, "failed")
    objective, error = summary.get("objective"), summary.get("error")
    return Ended(
        state=state,
        exit_code=code,
        objective=objective if isinstance(objective, float) else math.nan,
        error=None if state in COMPLETE else str(error or f"failed with exit code {code}"),
    )
