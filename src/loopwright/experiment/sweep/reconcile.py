"""Functions that update the entries of jobs from their run directories. They import no torch.

If the index and the run directory of a job differ, the run directory is right. The index is outdated if the runner was
killed, or if the user resumed a job with ``loopwright resume``.
"""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, on_one_line
from loopwright.experiment.sweep.index import GOOD, JobEntry, SweepIndex, with_results
from loopwright.experiment.sweep.slurm_queue import exit_record_of, open_slurm_id
from loopwright.records import COMPLETE, read_mapping, read_record, read_series, read_summary
from loopwright.run_lock import is_held, is_locked

PRUNER = "pruner"  # value of `stop.by` in the summary of a pruned job
LOST = "lost"  # end of an attempt whose process ended while no runner watched it
MAX_LOST = 2  # a job with this many lost attempts has failed, unless the last of them has saved a checkpoint
_MAX_ERROR = 1000
_STEP_FOLDER = re.compile(r"step_\d{8,}")
_MAX_OUTPUT_BYTES = 1 << 30


def reconciled(directory: Path, index: SweepIndex) -> SweepIndex:
    """Return the index with the states that the run directories of the jobs show.

    - If a process holds the lock of a run directory, the job is "running".
    - Otherwise, a job that has begun has the state in its summary.
    - If the summary contains "running", but no process holds the lock, the process was killed. The job is "interrupted"
      if it has a checkpoint, otherwise "pending". A job that was killed twice is "failed", unless its last attempt has
      saved a checkpoint.
    - A job that was submitted to Slurm keeps its state until it has recorded its exit code.

    While another process runs the sweep, the index is up to date, and the states are not changed.
    """
    if not has_other_runner(directory):
        index = replace(index, jobs=tuple(reconciled_job(directory, job) for job in index.jobs))
    return with_results(index)


def reconciled_job(directory: Path, job: JobEntry) -> JobEntry:
    """Return the entry of a job with the state that its run directory shows. Not for jobs that a runner watches."""
    run_dir = directory / job.directory
    slurm_id = open_slurm_id(job)
    if slurm_id is not None:  # another machine may hold its lock, or it may wait in the queue
        record = exit_record_of(directory, job.number, slurm_id)
        return job if record is None else ended_entry(run_dir, job, record.exit_code, end=record.failure)
    may_lack_summary = job.state in ("skipped", "failed") or (job.state == "pending" and not job.attempts)
    if may_lack_summary and not os.path.lexists(run_dir / "summary.json"):
        return job
    if is_locked(run_dir):
        return replace(job, state="running")
    summary = _summary_of(run_dir)
    state = summary.get("state")
    if state in (*COMPLETE, "interrupted", "failed"):
        is_known = job.state in (*GOOD, "failed", "interrupted") and job.seconds == summary.get("seconds")
        return job if is_known else ended_entry(run_dir, job, None)
    if job.state != "running" and (job.state == "failed" or state is None):
        return job
    return lost_entry(run_dir, job)


def lost_entry(run_dir: Path, job: JobEntry) -> JobEntry:
    """Return the entry of a job whose process was killed while no runner watched it."""
    newest, is_stuck = newest_checkpoint(run_dir), False
    if job.state == "running" and job.attempts and job.attempts[-1].ended is None:
        job = job.with_attempt(ended=now(), end=LOST)
        num_lost = sum(attempt.end == LOST for attempt in job.attempts)
        is_stuck = num_lost >= MAX_LOST and job.attempts[-1].resumed_from == newest
    job = with_summary(job, _summary_of(run_dir))
    if is_stuck:
        return replace(job, state="failed", error="the process was killed, or the machine was switched off")
    return replace(job, state="pending" if newest is None else "interrupted", error=None)


def ended_entry(
    run_dir: Path, job: JobEntry, exit_code: int | None, error: str | None = None, *, end: str | None = None
) -> JobEntry:
    """Return the entry of a job whose process has ended.

    Args:
        run_dir: run directory of the job.
        job: entry of the job.
        exit_code: exit code of the process, or minus the number of the signal that killed it; None if unknown.
        error: why the job could not begin; None if it began.
        end: reason for which the runner or Slurm ended the attempt, such as "out of time". The job has then failed,
            unless its run was completed. None: the attempt ended by itself.
    """
    summary = _summary_of(run_dir)
    recorded = summary.get("state")
    job = _with_logged(run_dir, with_summary(job, summary), summary)
    if job.num_steps is None:  # the plan of a job with a trusted package is made in its run
        job = replace(job, num_steps=num_steps_of(run_dir))
    if recorded in COMPLETE:  # also if a signal arrived while the process ended
        state = "pruned" if _stopped_by(summary) == PRUNER else "done"
        how, error = str(recorded), None
    elif end is not None:
        state, how, error = "failed", end, end
    elif exit_code is not None and exit_code < 0:
        state, how = "failed", f"killed by {_signal_name(-exit_code)}"
        error = _death(run_dir, how)
    elif exit_code in (130, 143) or (recorded == "interrupted" and not exit_code):
        state, how, error = "interrupted" if has_checkpoint(run_dir) else "pending", "interrupted", None
    elif recorded == "running":  # the run has recorded no end
        state, how = "failed", f"ended with exit code {exit_code}"
        error = _death(run_dir, how)
    else:
        state, how = "failed", "raised"
        error = error or _error_of(summary) or _last_line(run_dir) or f"exit code {exit_code}"
    if job.attempts:
        job = job.with_attempt(ended=now(), end=how, exit_code=exit_code)
    return replace(job, state=state, error=None if error is None else on_one_line(error, _MAX_ERROR))


def _with_logged(run_dir: Path, job: JobEntry, summary: Mapping[str, Any]) -> JobEntry:
    """Return the entry with the last logged metrics, if the run has recorded no end."""
    if summary.get("state") != "running" or job.metrics:
        return job
    try:
        series = read_series(run_dir)
    except CheckpointError:
        return job
    metrics = {name: each.values[-1] for name, each in series.items()}
    step = max((each.steps[-1] for each in series.values()), default=0)
    objective = metrics.get(str(summary.get("objective_name")))
    return replace(job, metrics=metrics, global_step=step, objective=objective)


def with_summary(job: JobEntry, summary: Mapping[str, Any]) -> JobEntry:
    """Return the entry with the results in the summary of its run. Values of a wrong type are left out."""
    metrics = summary.get("metrics")
    best = summary.get("best")
    step, seconds, digest = summary.get("global_step"), summary.get("seconds"), summary.get("weights_sha256")
    objective = _number(summary.get("objective"))
    if objective is None and isinstance(metrics, Mapping):  # a pruned or interrupted run
        objective = _number(metrics.get(str(summary.get("objective_name"))))
    return replace(
        job,
        objective=objective,
        metrics={str(name): value for name, each in metrics.items() if (value := _number(each)) is not None}
        if isinstance(metrics, Mapping)
        else {},
        best=dict(best) if isinstance(best, Mapping) else None,
        global_step=step if type(step) is int else 0,
        seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        weights_sha256=digest if isinstance(digest, str) else None,
    )


def has_other_runner(directory: Path) -> bool:
    """Return whether another process on this machine runs the sweep."""
    return not is_held(directory) and is_locked(directory)


def has_checkpoint(run_dir: Path) -> bool:
    """Return whether a run has a checkpoint folder with a manifest."""
    return newest_checkpoint(run_dir) is not None


def newest_checkpoint(run_dir: Path) -> str | None:
    """Return the name of the newest checkpoint folder with a manifest; None if there is none."""
    try:
        with os.scandir(run_dir / "checkpoints") as entries:
            names = [entry.name for entry in entries if _STEP_FOLDER.fullmatch(entry.name)]
    except OSError:
        return None
    whole = [name for name in names if (run_dir / "checkpoints" / name / "manifest.json").is_file()]
    return max(whole, key=lambda name: int(name[5:]), default=None)


def now() -> str:
    """Return the current time in the format of ISO 8601 with the offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def num_steps_of(run_dir: Path) -> int | None:
    """Return the last step in the plan of a run; None if the run does not train, or has not begun."""
    try:
        settings = read_mapping(run_dir / "plan.json").get("settings")
    except CheckpointError:
        return None
    stop = settings.get("stop_step") if isinstance(settings, Mapping) else None
    return stop if type(stop) is int else None


def _summary_of(run_dir: Path) -> dict[str, Any]:
    try:
        return read_summary(run_dir)
    except CheckpointError:
        return {}


def _stopped_by(summary: Mapping[str, Any]) -> object:
    stop = summary.get("stop")
    return stop.get("by") if isinstance(stop, Mapping) else None


def _error_of(summary: Mapping[str, Any]) -> str | None:
    error = summary.get("error")
    return error if summary.get("state") == "failed" and isinstance(error, str) else None


def _death(run_dir: Path, how: str) -> str:
    """Return how a process ended, with the last line of its output."""
    line = _last_line(run_dir)
    return how if line is None else f"{how}; last output: {line}"


def _last_line(run_dir: Path) -> str | None:
    """Return the last line that the process of a job has printed; None if there is none."""
    try:
        data = read_record(run_dir / "output.log", _MAX_OUTPUT_BYTES) or b""
    except CheckpointError:
        return None
    lines = [line for line in data[-10_000:].decode(errors="replace").splitlines() if line.strip()]
    return on_one_line(lines[-1], 300) if lines else None


def _signal_name(number: int) -> str:
    return {each.value: each.name for each in signal.Signals}.get(number, f"signal {number}")


def _number(value: object) -> float | None:
    """Return a number from a summary; None for any other value. A summary contains NaN and infinity as strings."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value)
    return float(value)
