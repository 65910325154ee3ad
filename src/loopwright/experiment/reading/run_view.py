"""`RunView`, what ``loopwright show`` shows of one run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from loopwright.errors import CheckpointError
from loopwright.experiment.reading.entry import Entry, run_entry
from loopwright.experiment.reading.next_commands import next_commands
from loopwright.records import (
    TIMING_FILE,
    Series,
    checkpoint_step,
    find_checkpoints,
    read_run,
    read_series,
)
from loopwright.records.comparison.metric_values import mode_of

_RATE = "train/steps_per_second"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """What a screen shows of one run.

    Attributes:
        entry: values of the run that are also in the list of runs.
        series: metrics by name. The objective is the first.
        steps_per_second: median of the logged rates; None if no rate was logged.
        resumed_from: name of the checkpoint of each resume.
        stop_reason: why a callback stopped the run; None if no callback did.
        checkpoints: step and size in bytes of each checkpoint, in ascending order of the steps.
        commands: shell commands that the user can run next, by label.
        problem: why the metrics cannot be read; None if they can.
    """

    entry: Entry
    series: Mapping[str, Series]
    steps_per_second: float | None
    resumed_from: Sequence[str]
    stop_reason: str | None
    checkpoints: Sequence[tuple[int, int]]
    commands: Mapping[str, str]
    problem: str | None


def read_view(directory: Path) -> RunView:
    """Read what a screen shows of one run. Nothing is written.

    Raises:
        CheckpointError: if the directory contains no run.
    """
    run = read_run(directory)
    entry = run_entry(directory, "job" if run.is_job else "run")
    series, problem = _series(directory)
    rates = _series(directory, TIMING_FILE)[0].get(_RATE)
    positive = [] if rates is None else [rate for _, rate in rates.finite if rate > 0]
    resumes = run.summary.get("resumes")
    names = [each.get("checkpoint") for each in resumes if isinstance(each, dict)] if isinstance(resumes, list) else []
    folders = find_checkpoints(directory)
    return RunView(
        entry=_with_best(entry, series),
        series=dict(sorted(series.items(), key=lambda item: item[0] != entry.objective_name)),
        steps_per_second=median(positive) if positive else None,
        resumed_from=[name for name in names if isinstance(name, str)],
        stop_reason=run.stop_reason,
        checkpoints=[(checkpoint_step(folder.name), _size(folder)) for folder in folders],
        commands=next_commands(entry, is_job=run.is_job, has_checkpoint=bool(folders)),
        problem=problem,
    )


def best_of(series: Series, entry: Entry) -> tuple[int, float] | None:
    """Return the step and the best value of a metric; None if it is not known whether a smaller value is better."""
    mode = mode_of(series.name, {entry.objective_name: entry.objective_mode})
    return None if mode is None else series.best(mode)


def _with_best(entry: Entry, series: Mapping[str, Series]) -> Entry:
    """Return the entry with the best value of the objective. The summary can contain the best of another metric."""
    if entry.best is not None or entry.objective_name not in series:
        return entry
    found = best_of(series[entry.objective_name], entry)
    return entry if found is None else replace(entry, best_step=found[0], best=found[1])


def _series(directory: Path, *file: str) -> tuple[dict[str, Series], str | None]:
    try:
        return read_series(directory, *file), None
    except CheckpointError as error:
        return {}, str(error)


def _size(folder: Path) -> int:
    """Return the number of bytes of the files in a checkpoint folder. Symbolic links are not followed."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:  # the folder was removed
        return 0
