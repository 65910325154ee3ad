"""From checked jobs to Hydra: the directory is made, Hydra runs the jobs, their ends become an exit code."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from loopwright.device import deterministic_workspace
from loopwright.errors import refuse
from loopwright.experiment.compose.hydra_main import run_hydra
from loopwright.experiment.compose.overrides import with_value
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import complain, one_line_of, tell
from loopwright.experiment.console.tables import print_sweep, show
from loopwright.experiment.gate.resolve import resolve
from loopwright.experiment.gate.targets import check_targets
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import check_jobs
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.settings import without_training
from loopwright.experiment.launch.supervised import Supervised
from loopwright.experiment.rundir.directory import allocate, check_usable, use
from loopwright.experiment.rundir.writer import write_sweep
from loopwright.experiment.runs.ending import Ended, RunRequest
from loopwright.experiment.runs.run import run
from loopwright.records import read_summary


def launch(line: CommandLine, jobs: Sequence[Job], trust: Trust, supervised: Supervised | None) -> int:
    """Check every job, then run them, and return the exit code.

    Args:
        line: the command line.
        jobs: composed.
        trust: what the user trusts.
        supervised: told of the directory that is made, where a supervisor wants to know.

    Raises:
        SettingError: before anything is made, for a setting of any job.
        CheckpointError: likewise, for a checkpoint that is not there.
    """
    with deterministic_workspace(is_needed=any(job.settings.deterministic for job in jobs)):
        return _launch(line, jobs, trust, supervised)


def _launch(line: CommandLine, jobs: Sequence[Job], trust: Trust, supervised: Supervised | None) -> int:
    setting = "hydra.sweep.dir" if line.multirun else "hydra.run.dir"
    first = jobs[0]
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size != "1":
        raise refuse("WORLD_SIZE", world_size, "1", "several processes are not built yet")
    if first.directory is not None:
        check_usable(setting, Path(first.directory))
    check_jobs(jobs, trust)
    if first.directory is not None:
        directory = use(setting, first.directory)
    else:
        directory = allocate(first.settings.name, is_sweep=line.multirun)
    if supervised is not None:
        supervised.tell(directory)
    ended = _run_jobs(line, jobs, trust, directory, with_value(line.overrides, setting, str(directory)))
    if not line.multirun:
        return ended[-1].exit_code if ended else 1
    return _close_sweep(jobs, directory, first.settings.objective, ended)


def _run_jobs(
    line: CommandLine, jobs: Sequence[Job], trust: Trust, directory: Path, overrides: Sequence[str]
) -> list[Ended]:
    default_num_threads = torch.get_num_threads()
    ended: list[Ended] = []

    def task(config: DictConfig) -> float:
        """What Hydra calls for each job. Returns its objective, NaN if it failed."""
        request = RunRequest(
            config=_checked(config, trust),
            directory=directory / str(_job_number()) if line.multirun else directory,
            words=_words(line),
            trust=trust,
            default_num_threads=default_num_threads,
            is_quiet=line.multirun,
        )
        try:
            end = run(request)
        except Exception as error:  # noqa: BLE001  (Hydra would keep it, and with it the frames of the run)
            end = Ended(state="failed", exit_code=1, error=one_line_of(error))
            complain(f"failed: {end.error}")
        ended.append(end)
        if line.multirun:
            gc.collect()  # what callbacks of a user's hold in circles would wait for the next job's garbage
            _say_job(len(ended) - 1, len(jobs), request.directory, end)
            if end.error is not None:
                complain(f"job {len(ended) - 1}: {end.error}")
        if end.state == "interrupted" and line.multirun:
            raise KeyboardInterrupt
        return end.objective

    flags = [*(["--multirun"] if line.multirun else []), *line.config_dir_flag]
    try:
        code = run_hydra([*flags, *overrides], task)
    except KeyboardInterrupt:
        code = 130
    was_said = bool(ended) and ended[-1].state == "interrupted"
    if code in (130, 143) and not was_said:  # another signal came while an end was recorded
        complain(f"interrupted (run directory: {directory})")
        ended.append(Ended(state="interrupted", exit_code=code))
    return ended


def _words(line: CommandLine) -> list[str]:
    """The command that would run this job alone: of a sweep, its own overrides in place of the swept ones."""
    if not line.multirun:
        return ["loopwright", *line.words]
    flags = [*line.config_dir_flag, *(f"--trust={name}" for name in line.trust)]
    return ["loopwright", *flags, *HydraConfig.get().overrides.task]


def _checked(config: DictConfig, trust: Trust) -> dict[str, Any]:
    """What Hydra composed, resolved, and through the gate once more: files may have changed since the check."""
    plain = resolve(config)
    assert isinstance(plain, dict)
    check_targets(plain, trust)
    return without_training(plain)


def _job_number() -> int:
    return int(HydraConfig.get().job.num)


def _say_job(number: int, num_jobs: int, directory: Path, end: Ended) -> None:
    detail = f": objective {show(end.objective)}" if end.error is None else ""
    tell(f"job {number} ({number + 1} of {num_jobs}) {end.state}{detail}; {directory}")


def _close_sweep(jobs: Sequence[Job], directory: Path, objective: str, ended: Sequence[Ended]) -> int:
    unknown = {"state": "not run", "objective": None, "error": None}
    summaries = [read_summary(directory / str(job.number)) or unknown for job in jobs]
    shown = [{key: summary[key] for key in unknown} for summary in summaries]
    write_sweep(directory, [{**each, "overrides": list(job.overrides)} for job, each in zip(jobs, shown, strict=True)])
    rows = [{"number": job.number, "label": job.label, **each} for job, each in zip(jobs, shown, strict=True)]
    print_sweep(rows, objective, directory)
    if any(end.state == "interrupted" for end in ended):
        return max(end.exit_code for end in ended if end.state == "interrupted")
    return 0 if len(ended) == len(jobs) and all(end.exit_code == 0 for end in ended) else 1
