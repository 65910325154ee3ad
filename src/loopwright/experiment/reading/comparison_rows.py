"""`run_rows`, which returns a comparison of runs as rows for JSON, CSV and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from loopwright.records import RunRecord
from loopwright.records.comparison.run_comparison import RunComparison
from loopwright.records.comparison.setup_differences import NOT_SET, Difference

# The first fields of each row. Each run or sweep is one further field.
FIELDS = ("section", "name")
_OF_RUNS: Mapping[str, Callable[[RunRecord], Any]] = MappingProxyType(
    {
        "directory": lambda run: str(run.directory),
        "name": lambda run: run.name,
        "state": lambda run: run.state,
        "started": lambda run: run.started,
        "seconds": lambda run: run.seconds,
        "global_step": lambda run: run.global_step,
        "num_steps": lambda run: run.num_steps,
        "resumes": lambda run: run.resumes,
        "objective_name": lambda run: run.objective_name,
        "objective": lambda run: run.objective,
        "error": lambda run: run.problem or run.error,
    }
)


def run_rows(found: RunComparison) -> Iterator[dict[str, Any]]:
    """Yield the rows: facts about the runs, the last and the best value of each metric, and each difference."""
    for name, value_of in _OF_RUNS.items():
        yield as_row(found.labels, "run", name, [value_of(run) for run in found.runs])
    for metric in found.metrics:
        for section, values in (("last", metric.last), ("best", metric.best), ("best_step", metric.best_steps)):
            if any(value is not None for value in values):
                yield as_row(found.labels, section, metric.name, values)
    yield from difference_rows(found.labels, found.differences)


def difference_rows(labels: Sequence[str], differences: Sequence[Difference]) -> Iterator[dict[str, Any]]:
    """Yield a row for each difference. The text "not set" stands for a value that is missing in a run."""
    for each in differences:
        values = [repr(value) if value is NOT_SET else value for value in each.values]
        yield as_row(labels, each.section, each.name, values)


def as_row(labels: Sequence[str], section: str, name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return a row with the values of all runs or sweeps."""
    return {**dict(zip(FIELDS, (section, name), strict=True)), **dict(zip(labels, values, strict=True))}
