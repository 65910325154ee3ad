"""`group_table`, which returns the results of a sweep as a table of strings with one row for each group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from loopwright.errors import SettingError, did_you_mean, printable
from loopwright.experiment.sweep.index import Group, JobEntry, SweepIndex, has_result
from loopwright.experiment.sweep.tables.cell_text import (
    headings,
    is_number,
    job_numbers_text,
    measured_text,
    number_text,
    value_text,
    with_equal_decimals,
)
from loopwright.experiment.sweep.tables.comparison import MIN_TEST_PAIRS, Comparison, baseline_of, compare_jobs
from loopwright.plan import settle_mode

AS_CONFIGURED = "as configured"
_MAX_METRICS = 3
_MAX_LABEL = 30  # maximum number of characters of the values of the baseline in a heading
NO_VALUE = "no value"  # shown for a job that is done, but has no finite objective
_STATES = ("running", "interrupted", "failed", "pruned", "skipped", "pending", NO_VALUE)

Kind = Literal["factor", "objective", "best", "metric", "comparison", "jobs"]
Members = Mapping[int, Sequence[JobEntry]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: its kind, its heading, and a function that returns the cell of a group."""

    kind: Kind
    heading: str
    cell: Callable[[Group], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes:
        group: number of the group.
        cells: one string for each column.
        is_best: whether this is the best group of the sweep.
    """

    group: int
    cells: tuple[str, ...]
    is_best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTable:
    """The groups of a sweep as a table.

    Attributes:
        columns: columns, from left to right.
        rows: rows, from top to bottom.
        has_few_pairs: whether a comparison has at least 2 pairs, but too few pairs for a test.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    has_few_pairs: bool


def group_table(
    index: SweepIndex,
    *,
    sort: str | None = None,
    jobs: Collection[int] | None = None,
) -> GroupTable:
    """Return the table of the groups of a sweep.

    Args:
        index: index of the sweep.
        sort: key or heading of a factor, or name of a metric, by which the rows are sorted. With None, groups with all
            results precede groups with some results, and groups without results are last. Groups of each kind are
            sorted from the best to the worst mean.
        jobs: numbers of jobs. Only groups with at least one of these jobs have a row. None: all groups.

    Raises:
        SettingError: if ``sort`` is neither a factor nor a metric of the sweep.
    """
    members = jobs_by_group(index)
    names = headings([factor.key for factor in index.factors])
    num_seeds = max(map(len, members.values()), default=0)
    groups = [g for g in index.groups if jobs is None or any(job.number in jobs for job in members[g.number])]
    groups.sort(key=_order(index, members, names, sort))

    baseline = baseline_of(index) if len(index.groups) > 1 else None
    compared: dict[int, Comparison] = {}
    if baseline is not None:
        base, mode = members[baseline], index.objective.mode
        compared = {g.number: compare_jobs(members[g.number], base, mode) for g in groups if g.number != baseline}

    columns = [*_factor_columns(names), *_metric_columns(index, members, num_seeds)]
    if baseline is not None:
        columns.append(_comparison_column(index.groups[baseline], compared, names, num_seeds))
    columns.append(Column("jobs", "jobs", lambda group: job_numbers_text(members[group.number])))

    best = None if index.best is None or len(index.groups) == 1 else index.best.group
    single = ("best", "metric") if num_seeds > 1 else ("best", "metric", "objective", "comparison")
    cells = [[column.cell(group) for group in groups] for column in columns]
    cells = [
        with_equal_decimals(each) if column.kind in single else each
        for column, each in zip(columns, cells, strict=True)
    ]
    return GroupTable(
        columns=tuple(replace(each, heading=printable(each.heading, keeps_newlines=False)) for each in columns),
        rows=tuple(
            Row(group=group.number, cells=tuple(texts), is_best=group.number == best)
            for group, *texts in zip(groups, *cells, strict=True)
        ),
        has_few_pairs=any(2 <= each.num_pairs < MIN_TEST_PAIRS for each in compared.values()),
    )


def jobs_by_group(index: SweepIndex) -> dict[int, list[JobEntry]]:
    """Return the jobs of each group, in the order of their numbers."""
    members: dict[int, list[JobEntry]] = {group.number: [] for group in index.groups}
    for job in index.jobs:
        members[job.group].append(job)
    return members


def metric_columns(index: SweepIndex) -> list[str]:
    """Return the names of the metrics in the table, other than the objective.

    These are the metrics in ``sweep.columns``. If the setting is empty, these are the first three metrics of the last
    validation.
    """
    chosen = index.settings.get("columns")
    if chosen:
        return [str(name) for name in chosen if name != index.objective.name]
    return [name for name in metric_names(index) if name.startswith("val/")][:_MAX_METRICS]


def metric_names(index: SweepIndex) -> list[str]:
    """Return the names of all metrics of the jobs other than the objective, in the order of their first appearance."""
    names = dict.fromkeys(name for job in index.jobs for name in job.metrics)
    return [name for name in names if name != index.objective.name]


def _factor_columns(names: Mapping[str, str]) -> Iterator[Column]:
    if not names:
        yield Column("factor", "settings", lambda _: AS_CONFIGURED)
    for key, name in names.items():
        yield Column("factor", name, partial(_factor_text, key))


def _factor_text(key: str, group: Group) -> str:
    return value_text(group.values[key]) if key in group.values else ""


def _metric(name: str, job: JobEntry) -> float | None:
    return job.metrics.get(name)


def _metric_columns(index: SweepIndex, members: Members, num_seeds: int) -> Iterator[Column]:
    """Yield the columns of the objective, of its best value and of the further metrics."""
    objective = index.objective.name

    def mean_of(value_of: Callable[[JobEntry], Any]) -> Callable[[Group], str]:
        def cell(group: Group) -> str:
            mean = _mean(value_of(job) for job in members[group.number] if has_result(job))
            return "" if mean is None else number_text(mean)

        return cell

    yield Column(
        "objective",
        f"{objective}, mean ± s.d. of {num_seeds}" if num_seeds > 1 else objective,
        lambda group: objective_text(group, members[group.number], num_seeds),
    )
    if any(best_value(job, objective) is not None for job in index.jobs):
        yield Column("best", "best", mean_of(lambda job: best_value(job, objective)))
    for name in metric_columns(index):
        yield Column("metric", name, mean_of(partial(_metric, name)))


def _comparison_column(
    baseline: Group, compared: Mapping[int, Comparison], names: Mapping[str, str], num_seeds: int
) -> Column:
    texts = {names[key]: value_text(value) for key, value in baseline.values.items() if key in names}
    label = " ".join(texts.values())
    is_short = len(texts) < 2 and len(label) <= _MAX_LABEL  # values of several factors would make a wide column
    own_cell = "–" if is_short else "baseline"
    return Column(
        "comparison",
        f"against {label if is_short else 'the baseline'}{', same seeds' if num_seeds > 1 else ''}",
        lambda group: comparison_text(compared[group.number], num_seeds) if group.number in compared else own_cell,
    )


def best_value(job: JobEntry, objective: str) -> float | None:
    """Return the best value of the objective in the validations of a job; None if it is unknown."""
    value = None if job.best is None or job.best.get("name") != objective else job.best.get("value")
    return value if is_number(value) else None


def _mean(values: Iterable[Any]) -> float | None:
    finite = [value for value in values if is_number(value)]
    return sum(value / len(finite) for value in finite) if finite else None  # the sum of the values may overflow


def objective_text(group: Group, jobs: Sequence[JobEntry], num_seeds: int) -> str:
    """Return the mean and the deviation of a group, or the states of its jobs if the group has no result."""
    if group.mean is None:
        counts = Counter(NO_VALUE if job.state == "done" else job.state for job in jobs)
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{counts[state]} {state}" for state in _STATES if state in counts)
    text = measured_text(group.mean, group.deviation)
    return text if group.num_done == len(jobs) == num_seeds else f"{text} ({group.num_done} of {len(jobs)})"


def comparison_text(comparison: Comparison, num_seeds: int) -> str:
    """Return the mean difference of a group from another group, and in how many pairs of jobs the group is better."""
    if comparison.mean is None:
        return ""
    text = measured_text(comparison.mean, comparison.deviation, has_sign=True)
    if num_seeds > 1:
        text += f", {comparison.num_better} of {comparison.num_pairs}"
    return text if comparison.p_value is None else f"{text}, p = {comparison.p_value:.2g}"


def _order(
    index: SweepIndex, members: Members, names: Mapping[str, str], sort: str | None
) -> Callable[[Group], tuple[Any, ...]]:
    """Return the function that computes the sorting key of a group."""
    sign = -1.0 if index.objective.mode == "max" else 1.0
    if sort is None:
        return lambda group: (
            2 if group.mean is None else int(group.num_done < len(members[group.number])),
            sign * (group.mean or 0.0),
            group.number,
        )
    for key, name in names.items():
        if sort in (key, name):
            return lambda group: (*_place(group.values.get(key)), group.number)
    if sort == index.objective.name:
        return lambda group: (group.mean is None, sign * (group.mean or 0.0), group.number)
    known = metric_names(index)
    if sort not in known:
        available = [*names.values(), index.objective.name, *known]
        problem = f"={sort}: no such column. Available: {', '.join(available)}.{did_you_mean(sort, available)}"
        raise SettingError("sort", problem)
    is_smaller_better = _is_smaller_better(sort)

    def by_metric(group: Group) -> tuple[Any, ...]:
        mean = _mean(job.metrics.get(sort) for job in members[group.number] if has_result(job))
        value = 0.0 if mean is None else mean
        return (mean is None, value if is_smaller_better else -value, group.number)

    return by_metric


def _place(value: Any) -> tuple[int, float, str]:
    """Return a key that sorts values of any type: numbers first, then all other values by their text."""
    return (0, value, "") if is_number(value) else (1, 0.0, value_text(value))


def _is_smaller_better(metric: str) -> bool:
    try:
        return settle_mode(None, metric) == "min"
    except SettingError:  # the name does not show which values are better
        return False
