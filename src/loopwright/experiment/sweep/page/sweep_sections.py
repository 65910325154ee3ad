"""Sections of the page of a sweep: its jobs, its settings, and differences between the environments of its jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError
from loopwright.experiment.sweep.index import JobEntry, SweepIndex
from loopwright.experiment.sweep.pictures.factor_values import short_names
from loopwright.experiment.sweep.pictures.picture_data import Points
from loopwright.experiment.sweep.tables.cell_text import value_text
from loopwright.experiment.sweep.tables.group_table import best_value, metric_columns
from loopwright.records import read_mapping
from loopwright.records.report.axis import make_axis, number_text
from loopwright.records.report.builder import Element, element
from loopwright.records.report.downsample import downsample
from loopwright.records.report.masks import HIDDEN, is_secret, masked
from loopwright.records.report.tables import Cell, data_table, duration_text

_MARKS = {
    "done": "✓",
    "pruned": "✂",
    "failed": "✗",
    "running": "▸",
    "interrupted": "‖",
    "pending": "·",
    "skipped": "–",
}
_CLASSES = {"done": "good", "failed": "bad", "running": "warn", "interrupted": "warn"}
_MAX_ENVIRONMENTS = 200
_MAX_SPARK_POINTS = 60


def jobs_section(index: SweepIndex, points: Mapping[int, Points]) -> list[Element]:
    """Return the table of all jobs with their settings, results, curves, errors and directories.

    Args:
        index: index of the sweep.
        points: values of the objective of each job.
    """
    objective, metrics = index.objective.name, metric_columns(index)
    columns = ["job", *short_names(index.factors), "seed", "state", objective, "best", *metrics, "steps", "time"]
    has_errors = any(job.error for job in index.jobs)
    rows = [_row(index, job, metrics, points.get(job.number, ()), has_errors) for job in index.jobs]
    columns += ["curve", "directory", *(["error"] if has_errors else [])]
    table = data_table("jobs", columns, rows, can_hide=True)
    return [element("h2", "Jobs", id="all-jobs"), table]


def settings_section(directory: Path, index: SweepIndex) -> list[Any]:
    """Return the command and the settings of the sweep, and differences between the environments of its jobs."""
    settings = {key: value for key, value in index.settings.items() if value not in (None, [], {}, "none")}
    rows = [
        [Cell(element("code", f"sweep.{key}")), Cell(element("code", _json(key, settings[key])))] for key in settings
    ]
    differing = _differences(directory, index)
    differences = data_table("environments", ["name", "values"], differing) if differing else None
    command = element("pre", masked(" ".join(index.command)), tabindex=0)
    return [
        element("h2", "Sweep", id="sweep"),
        element("details", element("summary", "Command"), command, class_="block", open=True),
        data_table("settings", ["setting", "value"], rows),
        element("h3", "Differences between the environments of the jobs"),
        differences or element("p", "None.", class_="pale"),
    ]


def _row(index: SweepIndex, job: JobEntry, metrics: list[str], points: Points, has_error: bool) -> list[Cell]:
    values = index.groups[job.group].values
    state = element("span", f"{_MARKS.get(job.state, '?')} {job.state}", class_=_CLASSES.get(job.state))
    return [
        Cell(element("span", job.number, data_group=job.group), job.number, is_number=True),
        *(_factor(factor.key, values.get(factor.key)) for factor in index.factors),
        Cell(job.seed, job.seed, is_number=True),
        Cell(state, job.state),
        _number(job.objective),
        _number(best_value(job, index.objective.name)),
        *(_number(job.metrics.get(name)) for name in metrics),
        Cell(f"{job.global_step:,}", job.global_step, is_number=True),
        Cell(duration_text(job.seconds), job.seconds, is_number=True),
        Cell(_spark(points), ""),
        Cell(element("code", job.directory), job.directory),
        *([Cell(element("div", job.error, class_="wide") if job.error else "", job.error or "")] if has_error else []),
    ]


def _factor(key: str, value: Any) -> Cell:
    text = "" if value is None else HIDDEN if is_secret(key) else value_text(value)
    return Cell(text, value if isinstance(value, int | float | str) and not is_secret(key) else None)


def _number(value: float | None) -> Cell:
    return Cell("" if value is None else number_text(value), "" if value is None else repr(value), is_number=True)


def _spark(points: Points) -> Element | None:
    """Return a small curve of the objective, without axes."""
    if len(points) < 2:
        return None
    few = downsample([step for step, _ in points], [value for _, value in points], _MAX_SPARK_POINTS)
    x_axis = make_axis([x for x, _ in few], margin=0.0)
    y_axis = make_axis([y for _, y in few if y is not None], may_be_log=True)
    places = [f"{x_axis.position(x) * 84 + 3:.1f} {19 - y_axis.position(y) * 16:.1f}" for x, y in few if y is not None]
    path = element("path", d="M" + "L".join(places), class_="line c0")
    return element("svg", path, viewBox="0 0 90 22", width=90, height=22, aria_hidden="true")


def _differences(directory: Path, index: SweepIndex) -> list[list[Cell]]:
    """Return a row for each entry of ``environment.json`` that is not equal in all jobs."""
    found: dict[str, dict[str, list[int]]] = {}
    for job in index.jobs[:_MAX_ENVIRONMENTS]:
        try:
            environment = read_mapping(directory / job.directory / "environment.json")
        except CheckpointError:
            continue
        for name, value in environment.items():
            found.setdefault(name, {}).setdefault(json.dumps(value, sort_keys=True), []).append(job.number)
    rows = []
    for name, values in found.items():
        if len(values) > 1:
            texts = [f"{masked(text)[:200]} (jobs {', '.join(map(str, jobs[:10]))})" for text, jobs in values.items()]
            rows.append([Cell(name), Cell(element("code", "; ".join(texts)))])
    return rows


def _json(key: str, value: Any) -> str:
    return HIDDEN if is_secret(key) else json.dumps(value, ensure_ascii=False)
