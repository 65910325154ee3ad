"""`Entry`, one line in a list of runs: a run, a sweep, or a job of a sweep."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from loopwright.errors import CheckpointError, on_one_line
from loopwright.experiment.console.command_line import shell_line
from loopwright.experiment.sweep.index import GOOD, JobEntry, SweepIndex, has_result
from loopwright.experiment.sweep.index_file import read_index
from loopwright.experiment.sweep.reconcile import reconciled
from loopwright.experiment.sweep.tables.cell_text import headings
from loopwright.experiment.sweep.tables.group_table import best_value
from loopwright.records import RunRecord, find_runs, is_run, read_run, run_id, with_logged
from loopwright.records.origins import read_origins
from loopwright.run_lock import is_locked

# States of sweeps and their jobs that have another name in the list.
_AS_RUN = {"done": "completed", "pruned": "stopped"}
_STARTED = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line in a list of runs. Values that are unknown are None.

    Attributes:
        kind: whether the line is a run, a sweep, or a job of a sweep.
        directory: path of the run or the sweep.
        id: six digits at the end of the directory's name, with the number of a job, such as ``1a2b3c/0``.
        name: name of the experiment.
        state: state of a run, as in `loopwright.records.STATES`. Jobs can also be "pending" or "skipped".
        num_jobs: number of jobs of a sweep.
        num_done: number of jobs of a sweep that have a result.
        started: time at which the run began.
        ended: time at which the run ended.
        seconds: duration over all resumes.
        global_step: steps that the run has completed. Of a sweep, the largest number of its jobs.
        num_steps: steps in the plan.
        objective_name: name of the metric that is the result of the run.
        objective_mode: "min" or "max".
        objective: last value of the objective. Of a sweep, the mean of its best group.
        best: best value of the objective.
        best_step: step of the best value.
        metrics: last value of each metric. Of a sweep, the means of its best group.
        chosen: chosen option of each recorded configuration group, such as ``model``.
        changes: for each changed setting, the configured value and the value of the run.
        swept: description of the swept settings of a sweep.
        origin: run and step of the weights that the run starts from.
        error: error that ended the run, or the problem of a directory that cannot be read.
        command: command that started the run.
        resumes: number of resumes.
    """

    kind: Literal["run", "sweep", "job"]
    directory: Path
    id: str
    name: str
    state: str
    num_jobs: int | None = None
    num_done: int | None = None
    started: datetime | None = None
    ended: datetime | None = None
    seconds: float | None = None
    global_step: int = 0
    num_steps: int | None = None
    objective_name: str = "val/loss"
    objective_mode: str | None = None
    objective: float | None = None
    best: float | None = None
    best_step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    swept: str | None = None
    origin: str | None = None
    error: str | None = None
    command: str | None = None
    resumes: int = 0


def read_entries(directory: Path) -> list[Entry]:
    """Return the runs and sweeps below a directory. The jobs of a sweep are one entry; see `read_jobs`."""
    runs, sweeps = find_runs(directory)
    return [*map(run_entry, runs), *map(sweep_entry, sweeps)]


def run_entry(directory: Path, kind: Literal["run", "job"] = "run") -> Entry:
    """Return the entry of a run."""
    run = with_logged(read_run(directory))
    best = run.best if run.best is not None and run.best.name == run.objective_name else None
    return Entry(
        kind=kind,
        directory=directory,
        id=run.id,
        name=run.name,
        state=run.state,
        started=run.started or time_in_name(directory),
        ended=run.ended,
        seconds=run.seconds if run.summary else None,
        global_step=run.global_step,
        num_steps=run.num_steps,
        objective_name=run.objective_name,
        objective_mode=run.objective_mode,
        objective=run.objective,
        best=None if best is None else best.value,
        best_step=None if best is None else best.step,
        metrics=run.metrics,
        chosen=run.chosen,
        changes=run.changes,
        origin=origin_text(run),
        error=run.problem or run.error,
        command=run.command,
        resumes=run.resumes,
    )


def sweep_entry(directory: Path) -> Entry:
    """Return the entry of a sweep. A damaged index gives an entry with the state "unreadable"."""
    own = Entry(
        kind="sweep",
        directory=directory,
        id=run_id(directory),
        name=directory.parent.name if directory.name.endswith("_sweep") else directory.name,
        state="unreadable",
        started=time_in_name(directory),
    )
    try:
        index = reconciled(directory, read_index(directory))
    except CheckpointError as error:
        return replace(own, error=on_one_line(str(error), 1000))
    best = [] if index.best is None else [job for job in index.jobs_of(index.best.group) if has_result(job)]
    objective = index.objective.name
    return replace(
        own,
        state=_state_of(directory, index),
        num_jobs=len(index.jobs),
        num_done=sum(job.state in GOOD for job in index.jobs),
        started=_time(index.created) or own.started,
        global_step=max((job.global_step for job in index.jobs), default=0),
        num_steps=max((job.num_steps or 0 for job in index.jobs), default=0) or None,
        objective_name=objective,
        objective_mode=index.objective.mode,
        objective=None if index.best is None else index.best.mean,
        best=_mean([best_value(job, objective) for job in best]),
        metrics={name: mean for name in _metric_names(best) if (mean := _mean([j.metrics.get(name) for j in best]))},
        swept=swept_text(index),
        error=next((job.error for job in index.jobs if job.state == "failed"), None),
        command=on_one_line(shell_line(index.command), 1000),
    )


def read_jobs(sweep: Entry) -> list[Entry]:
    """Return the jobs of a sweep. The result is empty if its index cannot be read."""
    try:
        index = reconciled(sweep.directory, read_index(sweep.directory))
    except CheckpointError:
        return []
    return [_job_entry(sweep, job, index) for job in index.jobs]


def swept_text(index: SweepIndex) -> str:
    """Describe a sweep by its factors and its seeds, such as ``sweep of lr and dropout × 2 seeds``."""
    names = " and ".join(headings([factor.key for factor in index.factors]).values())
    seeds = f"{len(index.seeds)} seeds" if len(index.seeds) > 1 else ""
    return on_one_line(f"sweep of {' × '.join(part for part in (names, seeds) if part) or '1 job'}")


def origin_text(run: RunRecord) -> str | None:
    """Return the id and the step of the checkpoint that a run starts from, such as ``6b7ccb, step 2,000``."""
    origins = read_origins(run.summary)
    if not origins:
        return None
    return origins[0].text if len(origins) == 1 else f"{len(origins)} checkpoints"


def time_in_name(directory: Path) -> datetime | None:
    """Return the time in the name of a run directory, such as ``2026-12-01_09-15-05_c623ba``; None if it has none."""
    found = _STARTED.match(directory.name)
    return None if found is None else _time(f"{found[1]}T{found[2]}:{found[3]}:{found[4]}")


def _job_entry(sweep: Entry, job: JobEntry, index: SweepIndex) -> Entry:
    directory = sweep.directory / job.directory
    state = _AS_RUN.get(job.state, job.state)
    if is_run(directory) and os.path.lexists(directory / "summary.json"):
        own = run_entry(directory, "job")
        is_ended = own.state in ("completed", "stopped", "failed", "interrupted", "running")
        return replace(own, name=sweep.name, state=own.state if is_ended else state, error=job.error or own.error)
    return Entry(
        kind="job",
        directory=directory,
        id=run_id(directory),
        name=sweep.name,
        state=state,
        started=sweep.started,
        seconds=job.seconds,
        global_step=job.global_step,
        num_steps=job.num_steps,
        objective_name=index.objective.name,
        objective_mode=index.objective.mode,
        objective=job.objective,
        best=best_value(job, index.objective.name),
        metrics={name: value for name, value in job.metrics.items() if value is not None},
        changes={key: (pair[0], pair[1]) for key, pair in job.changes.items() if len(pair) == 2},
        error=job.error,
    )


def _state_of(directory: Path, index: SweepIndex) -> str:
    """Return the state of a sweep. A sweep is "lost" if its index says "running" and no process runs it or a job."""
    if any(job.state == "running" for job in index.jobs):
        return "running"
    if index.state == "running":
        return "running" if is_locked(directory) else "lost"
    return _AS_RUN.get(index.state, index.state)


def _metric_names(jobs: list[JobEntry]) -> dict[str, None]:
    return dict.fromkeys(name for job in jobs for name in job.metrics)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(value / len(known) for value in known) if known else None


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not 1970 <= found.year < 9000:  # other times can overflow when they are converted to the local time
        return None
    return found.astimezone() if found.tzinfo is None else found
