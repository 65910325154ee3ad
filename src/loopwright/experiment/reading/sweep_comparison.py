"""`SweepComparison`, what ``loopwright compare`` shows of several sweeps, and its lines and rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError
from loopwright.experiment.reading.comparison_rows import as_row, difference_rows
from loopwright.experiment.reading.comparison_text import difference_sections, note_lines, seconds_text
from loopwright.experiment.reading.entry import Entry, sweep_entry
from loopwright.experiment.reading.side_by_side import Row, Section, side_by_side
from loopwright.experiment.reading.texts import UNKNOWN, state_text
from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.index_file import read_index
from loopwright.experiment.sweep.reconcile import reconciled
from loopwright.experiment.sweep.tables.group_table import comparison_text, jobs_by_group, objective_text
from loopwright.experiment.sweep.tables.sweep_comparison import (
    MatchedGroup,
    compare_sweeps,
    factor_keys,
    have_one_objective,
    label_of,
)
from loopwright.records import ENVIRONMENT_FILE, config_leaves, is_run, read_config, read_run
from loopwright.records.comparison.run_comparison import labels_of
from loopwright.records.comparison.run_setup import RunSetup, read_setup
from loopwright.records.comparison.setup_differences import Difference, missing_sections, setup_differences

_SEED = "seed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepComparison:
    """Several sweeps side by side.

    Attributes:
        labels: name of each sweep: its id, or its directory if two sweeps have equal ids.
        entries: what the list of runs shows of each sweep.
        indexes: indexes of the sweeps.
        groups: groups of the sweeps, matched by the values of their factors.
        best: values of the factors in the best group of each sweep; None if no group is done.
        differences: what differs between the sweeps, except the factors and the seeds.
        missing: each section that some sweeps have not recorded, and the labels of these sweeps.
        problems: one line for each file that cannot be read.
    """

    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    indexes: tuple[SweepIndex, ...]
    groups: tuple[MatchedGroup, ...]
    best: tuple[str | None, ...]
    differences: tuple[Difference, ...]
    missing: tuple[tuple[str, tuple[str, ...]], ...]
    problems: tuple[str, ...]


def read_sweep_comparison(directories: Sequence[Path]) -> SweepComparison:
    """Read several sweeps and compare them. Nothing is written.

    The configuration, the environment and the data of a sweep are read from its first job that has begun.

    Raises:
        CheckpointError: if the index of a sweep cannot be read.
    """
    indexes = [reconciled(directory, read_index(directory)) for directory in directories]
    entries = [sweep_entry(directory) for directory in directories]
    labels = labels_of(directories, [entry.id for entry in entries])
    setups = [_setup_of(directory, index) for directory, index in zip(directories, indexes, strict=True)]
    keys = factor_keys(indexes)
    fixed = [_fixed(setup, index, keys) for setup, index in zip(setups, indexes, strict=True)]
    compared = [part for key in (*keys, _SEED) for part in key.split("@")]
    return SweepComparison(
        labels=tuple(labels),
        entries=tuple(entries),
        indexes=tuple(indexes),
        groups=tuple(compare_sweeps(indexes, fixed)),
        best=tuple(
            None if index.best is None else label_of(index.groups[index.best.group], values, keys)
            for index, values in zip(indexes, fixed, strict=True)
        ),
        differences=tuple(setup_differences(setups, compared)),
        missing=tuple((name, tuple(labels[place] for place in places)) for name, places in missing_sections(setups)),
        problems=tuple(line for setup in setups for line in setup.problems),
    )


def sweep_comparison_lines(found: SweepComparison, *, width: int, shows_all: bool) -> list[str]:
    """Return the states of the sweeps, the results of their groups, and what else differs between them.

    Args:
        found: sweeps to compare.
        width: width of the terminal in characters.
        shows_all: whether every package and setting that differs is shown.
    """
    has_one = have_one_objective(found.indexes)
    has_difference = has_one and len(found.indexes) == 2
    names = [index.objective.name for index in found.indexes]
    title = f"{names[0]}, mean ± s.d." if has_one else "objective, mean ± s.d."
    headings = [*found.labels, *(["difference, same seeds"] if has_difference else [])]
    sections = [
        Section("", list(_sweep_rows(found, has_one=has_one))),
        Section(title, list(_group_rows(found, has_difference=has_difference))),
        *difference_sections(found.differences, shows_all=shows_all),
    ]
    filled = [_with_columns(section, len(headings)) for section in sections]
    lines = side_by_side(headings, filled, width)
    return [*lines, *note_lines(found.differences, found.missing, found.problems, len(found.indexes), width)]


def sweep_rows(found: SweepComparison) -> Iterator[dict[str, Any]]:
    """Yield the rows of a comparison for JSON, CSV and Markdown. Differences are from the first sweep."""
    facts: dict[str, Sequence[Any]] = {
        "directory": [str(entry.directory) for entry in found.entries],
        "name": [entry.name for entry in found.entries],
        "state": [entry.state for entry in found.entries],
        "num_jobs": [entry.num_jobs for entry in found.entries],
        "num_done": [entry.num_done for entry in found.entries],
        "seconds": [_seconds(index) for index in found.indexes],
        "objective_name": [index.objective.name for index in found.indexes],
        "best_group": list(found.best),
    }
    for name, values in facts.items():
        yield as_row(found.labels, "sweep", name, values)
    for each in found.groups:
        for name in ("mean", "deviation", "num_done"):
            values = [None if group is None else getattr(group, name) for group in each.groups]
            yield as_row(found.labels, name, each.label, values)
        for section, name in _OF_COMPARISONS:
            values = [None if each_one is None else getattr(each_one, name) for each_one in each.comparisons]
            if any(value is not None for value in values):
                yield as_row(found.labels, section, each.label, values)
    yield from difference_rows(found.labels, found.differences)


_OF_COMPARISONS = (
    ("difference", "mean"),
    ("difference_deviation", "deviation"),
    ("num_pairs", "num_pairs"),
    ("num_better", "num_better"),
    ("p_value", "p_value"),
)


def _setup_of(directory: Path, index: SweepIndex) -> RunSetup:
    """Return what the first job that has begun was made from. If no job has begun, only its configuration is known."""
    jobs = [path for job in index.jobs if is_run(path := directory / job.directory)]
    begun = next((path for path in jobs if (path / ENVIRONMENT_FILE).exists()), None)
    if begun is not None:
        return read_setup(read_run(begun))
    config: Mapping[str, Any] = {}
    with suppress(CheckpointError):
        config = read_config(jobs[0]) if jobs else {}
    known = dict(config_leaves(config)) if config else None
    return RunSetup(configuration=known, environment=None, diff=None, data=None, problems=())


def _fixed(setup: RunSetup, index: SweepIndex, keys: Sequence[str]) -> dict[str, Any]:
    """Return the values of factors that this sweep has not swept."""
    own = {factor.key for factor in index.factors}
    known = setup.configuration or {}
    return {key: known[key] for key in keys if key not in own and key in known}


def _sweep_rows(found: SweepComparison, *, has_one: bool) -> Iterator[Row]:
    yield Row("state", tuple(_state_text(entry) for entry in found.entries))
    yield Row("time", tuple(seconds_text(_seconds(index)) for index in found.indexes))
    if not has_one:
        yield Row("objective", tuple(index.objective.name for index in found.indexes))
    yield Row("best", tuple(each or UNKNOWN for each in found.best))


def _state_text(entry: Entry) -> str:
    return state_text(entry) if entry.num_jobs else entry.state


def _seconds(index: SweepIndex) -> float:
    """Return the sum of the durations of all jobs."""
    return sum(job.seconds for job in index.jobs)


def _group_rows(found: SweepComparison, *, has_difference: bool) -> Iterator[Row]:
    members = [jobs_by_group(index) for index in found.indexes]
    num_seeds = [max(map(len, jobs.values()), default=0) for jobs in members]
    for matched in found.groups:
        cells = [
            UNKNOWN if group is None else objective_text(group, jobs[group.number], num)
            for group, jobs, num in zip(matched.groups, members, num_seeds, strict=True)
        ]
        if has_difference:
            compared = matched.comparisons[1]
            cells.append("" if compared is None else comparison_text(compared, max(num_seeds)))
        yield Row(matched.label, tuple(cells))


def _with_columns(section: Section, num_columns: int) -> Section:
    """Return a section whose rows have a cell in each column."""
    rows = [Row(row.name, (*row.cells, *[""] * (num_columns - len(row.cells))), row.is_number) for row in section.rows]
    return Section(section.title, rows, section.notes)
