"""`RunComparison`, what ``loopwright compare`` shows of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loopwright.errors import CheckpointError
from loopwright.records.comparison.metric_values import MetricValues, metric_values
from loopwright.records.comparison.run_setup import read_setup
from loopwright.records.comparison.setup_differences import Difference, missing_sections, setup_differences
from loopwright.records.last_values import with_logged
from loopwright.records.run_record import RunRecord, read_run
from loopwright.records.series import Series, read_series


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Several runs side by side.

    Attributes:
        labels: name of each run: its id, or its directory if two runs have equal ids.
        runs: what each run directory shows.
        metrics: metrics of the runs.
        differences: what differs between the runs.
        missing: each section that some runs have not recorded, and the labels of these runs.
        problems: one line for each file that cannot be read.
    """

    labels: tuple[str, ...]
    runs: tuple[RunRecord, ...]
    metrics: tuple[MetricValues, ...]
    differences: tuple[Difference, ...]
    missing: tuple[tuple[str, tuple[str, ...]], ...]
    problems: tuple[str, ...]


def compare_runs(directories: Sequence[Path]) -> RunComparison:
    """Read several runs and compare them. Nothing is written.

    Raises:
        CheckpointError: if a directory contains no run.
    """
    runs = [with_logged(read_run(directory)) for directory in directories]
    labels = labels_of(directories, [run.id for run in runs])
    setups = [read_setup(run) for run in runs]
    problems = [line for setup in setups for line in setup.problems]
    series = [_series(directory, problems) for directory in directories]
    return RunComparison(
        labels=tuple(labels),
        runs=tuple(runs),
        metrics=tuple(metric_values(runs, series)),
        differences=tuple(setup_differences(setups)),
        missing=tuple((name, tuple(labels[place] for place in places)) for name, places in missing_sections(setups)),
        problems=tuple(problems),
    )


def labels_of(directories: Sequence[Path], ids: Sequence[str]) -> list[str]:
    """Return the ids of runs or sweeps. If two ids are equal, return the paths of all directories."""
    return list(ids) if len(set(ids)) == len(ids) else [str(directory) for directory in directories]


def _series(directory: Path, problems: list[str]) -> Mapping[str, Series]:
    try:
        return read_series(directory)
    except CheckpointError as error:
        problems.append(str(error))
        return {}
