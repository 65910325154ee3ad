"""`sweep_page`, which makes the HTML page of a sweep."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from loopwright.experiment.sweep.index import SweepIndex, with_results
from loopwright.experiment.sweep.page.svg_pictures import effect_chart, parallel_chart, search_chart
from loopwright.experiment.sweep.page.sweep_sections import jobs_section, settings_section
from loopwright.experiment.sweep.pictures.effect_data import effects, search_progress
from loopwright.experiment.sweep.pictures.picture_data import CurvePanel, LearningCurves, learning_curves, read_points
from loopwright.experiment.sweep.tables.cell_text import measured_text
from loopwright.experiment.sweep.tables.closing_lines import best_command, sweep_command, tie_line
from loopwright.experiment.sweep.tables.group_table import GroupTable, group_table
from loopwright.records import Series
from loopwright.records.panels import Panel
from loopwright.records.report.axis import make_axis, number_text
from loopwright.records.report.builder import Element, element
from loopwright.records.report.charts import Charts
from loopwright.records.report.parts import controls
from loopwright.records.report.shell import document
from loopwright.records.report.svg_chart import Mark
from loopwright.records.report.tables import Cell, command, data_table
from loopwright.records.report.uplot import UPlot

_MAX_FIRST_ROWS = 10
_MAX_CURVES = 3000
_STATES = ("failed", "pruned", "interrupted", "skipped", "running", "pending")


def sweep_page(
    directory: Path, index: SweepIndex, *, num_threads: int | None = None, uplot: UPlot | None = None
) -> str:
    """Return the page of a sweep as HTML.

    Args:
        directory: directory of the sweep. The curves are read from the run directories of its jobs.
        index: index of the sweep.
        num_threads: number of threads of the jobs; None if it is unknown.
        uplot: script for interactive charts; None: the charts are SVG only.
    """
    index = with_results(index)
    drawn = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    points = read_points(directory, index)
    curves = learning_curves(index, points)
    panels = [_curve_panel(panel, curves) for panel in curves.panels]
    charts = Charts([panel for panel, _ in panels])
    table = group_table(index)
    content: list[Any] = [
        _head(directory, index, drawn),
        _summary(index, table),
        groups_table("best-groups", table, _MAX_FIRST_ROWS),
        element("div", [command(*each) for each in _commands(directory, index, num_threads)], class_="commands"),
        element("h2", f"Learning curves: {index.objective.name}", id="curves"),
        *_curve_figures(charts, curves, panels, index),
        _effects(index),
        _search(index),
        _parallel(index),
        element("h2", "All groups", id="groups") if len(table.rows) > _MAX_FIRST_ROWS else None,
        groups_table("all-groups", table) if len(table.rows) > _MAX_FIRST_ROWS else None,
        jobs_section(index, points),
        settings_section(directory, index),
        element("footer", f"Made by Loopwright, {drawn}."),
    ]
    return document(f"Sweep {directory.name}", content, data={"charts": charts.data}, uplot=uplot)


def groups_table(name: str, table: GroupTable, max_rows: int | None = None) -> Element:
    """Return the table of the groups. The row of the best group has a mark.

    Args:
        name: value of the attribute ``id``.
        table: table as strings.
        max_rows: maximum number of rows; None: all rows.
    """
    rows = [
        [Cell(f"▸ {cell}" if row.is_best and not at else cell, cell) for at, cell in enumerate(row.cells)]
        for row in table.rows[:max_rows]
    ]
    best = next((at for at, row in enumerate(table.rows[:max_rows]) if row.is_best), None)
    return data_table(name, [column.heading for column in table.columns], rows, best=best)


def _head(directory: Path, index: SweepIndex, drawn: str) -> Element:
    counts = Counter(job.state for job in index.jobs)
    parts = [f"{counts['done']} of {len(index.jobs)} done"]
    parts += [f"{counts[state]} {state}" for state in _STATES if counts[state]]
    kind = "bad" if counts["failed"] else "warn" if index.state in ("running", "interrupted") else "good"
    mark = {"bad": "✗", "warn": "▸", "good": "✓"}[kind]
    note = f"drawn at {drawn} while the sweep continued" if index.state == "running" else drawn
    return element(
        "header",
        element(
            "div",
            element("h1", f"{index.name} ", element("span", directory.name, class_="pale mono")),
            element("button", "Dark", type="button", id="theme", class_="script"),
            class_="top",
        ),
        element("p", element("span", f"{mark} {', '.join(parts)}", class_=f"state {kind}"), " ",
                element("span", note, class_="pale")),
    )  # fmt: skip


def _summary(index: SweepIndex, table: GroupTable) -> Element:
    """Return the best group, its mean, and its distance to the next group."""
    objective = f"{index.objective.name} ({index.objective.mode})"
    factors = ", ".join(factor.key for factor in index.factors) or "none"
    facts = [("objective", objective, f"factors: {factors}; seeds: {', '.join(map(str, index.seeds)) or 'none'}")]
    if index.best is not None:
        best = index.groups[index.best.group]
        facts.insert(0, ("best group", best.label, _lead(index)))
        mean = "–" if best.mean is None else measured_text(best.mean, best.deviation)
        facts.insert(1, (f"mean {index.objective.name}", mean, f"of {best.num_done} seeds"))
    tie = tie_line(index)
    parts = [element("div", element("dt", name), element("dd", value, element("small", note)))
             for name, value, note in facts]  # fmt: skip
    return element("div", element("dl", parts, class_="facts"), element("p", tie, class_="pale") if tie else None)


def _lead(index: SweepIndex) -> str:
    """Return how many standard errors the best group is better than the next group whose jobs are all done."""
    assert index.best is not None
    best = index.groups[index.best.group]
    num_jobs = Counter(job.group for job in index.jobs)
    whole = [group for group in index.groups if group.mean is not None and group.num_done == num_jobs[group.number]]
    others = [group for group in whole if group.number != best.number]
    if not others or best.mean is None:
        return ""
    sign = -1.0 if index.objective.mode == "max" else 1.0
    second = min(others, key=lambda group: sign * (group.mean or 0.0))
    assert second.mean is not None
    difference = sign * (second.mean - best.mean)
    if best.deviation is None or second.deviation is None:
        return f"{number_text(difference)} better than {second.label}" if difference > 0 else ""
    error = math.sqrt(best.deviation**2 / best.num_done + second.deviation**2 / second.num_done)
    if error <= 0 or difference <= 0:
        return f"not better than {second.label}" if difference <= 0 else ""
    return f"{difference / error:.2g} standard errors better than {second.label}"


def _commands(directory: Path, index: SweepIndex, num_threads: int | None) -> list[tuple[str, str]]:
    states = {job.state for job in index.jobs}
    run_best = best_command(index, num_threads)
    found = [("Run the best", run_best)] if run_best is not None else []
    if "failed" in states:
        found.append(("Retry", sweep_command("retry", index, str(directory))))
    if states & {"pending", "interrupted", "skipped"}:
        found.append(("Resume", sweep_command("resume", index, str(directory))))
    found.append(("Show", sweep_command("show", index, str(directory))))
    return found


def _curve_figures(
    charts: Charts, curves: LearningCurves, panels: Sequence[tuple[Panel, Mapping[str, int]]], index: SweepIndex
) -> list[Element]:
    """Return the learning curves as small multiples with common axes, and their controls."""
    values = [value for panel in curves.panels for curve in panel.curves for _, value in curve.points]
    if not values:
        return [element("p", "No job has logged the objective.")]
    if all(len(curve.points) < 2 for panel in curves.panels for curve in panel.curves):
        return [element("p", "Each job has one value of the objective, so there are no curves.", class_="pale")]
    y_axis = make_axis(values, num_ticks=4, may_be_log=curves.is_log)
    figures = []
    for curve_panel, (panel, styles) in zip(curves.panels, panels, strict=True):
        faint = [name for name in panel.series if name.startswith("job ")] if curve_panel.means else []
        marks = _failures(curve_panel, index)
        figures.append(charts.figure(panel, styles, marks, faint=faint, y_axis=y_axis, has_numbers=False))
    more = curves.num_more_values
    note = element("p", f"{more} more values of the first factor have no chart.", class_="pale")
    return [controls(), element("div", figures, class_="charts"), *([note] if more else [])]


def _curve_panel(panel: CurvePanel, curves: LearningCurves) -> tuple[Panel, Mapping[str, int]]:
    """Return the means and the jobs of a panel as series, and the style of each series."""
    labels, series, styles = curves.labels, dict[str, Series](), dict[str, int]()
    for mean in panel.means:
        style = curves.styles[mean.group]
        name = f"mean{f', {labels[style]}' if style < len(labels) and labels[style] else ''}"
        name = name if name not in series else f"mean of group {mean.group}"
        series[name], styles[name] = _series(name, mean.points), style
    for curve in panel.curves[:_MAX_CURVES]:
        name = f"job {curve.job} (seed {curve.seed})"
        series[name], styles[name] = _series(name, curve.points), curves.styles[curve.group]
    return Panel(panel.title, series), styles


def _failures(panel: CurvePanel, index: SweepIndex) -> list[Mark]:
    """Return a cross at the end of the curve of each failed job."""
    ends = [(curve.job, curve.end) for curve in panel.curves if curve.is_failed and curve.end is not None]
    errors = {job.number: job.error or "failed" for job in index.jobs}
    return [Mark(kind="failed", x=step, y=value, text=f"job {job}: {errors[job]}") for job, (step, value) in ends]


def _series(name: str, points: Sequence[tuple[int, float]]) -> Series:
    return Series(name, [step for step, _ in points], [value for _, value in points])


def _effects(index: SweepIndex) -> list[Element] | None:
    found = [effect for effect in effects(index) if len(effect.points) > 1]
    if not found:
        return None
    means = [
        point.mean + sign * (point.deviation or 0.0) for each in found for point in each.points for sign in (-1, 1)
    ]
    means += [mean for each in found for line in each.lines for _, mean in line]
    y_axis = make_axis(means, num_ticks=4)
    figures = [
        element("figure", element("figcaption", each.name), effect_chart(each, index.objective.name, y_axis))
        for each in found
    ]
    note = "Mean and standard deviation of the objective by the value of one setting. Pale lines connect groups whose"
    return [
        element("h2", "Effects of single settings", id="effects"),
        element("p", f"{note} other settings are equal.", class_="pale"),
        element("div", figures, class_="charts"),
    ]


def _search(index: SweepIndex) -> list[Element] | None:
    progress = search_progress(index)
    if progress is None:
        return None
    note = "The line is the best value so far. Crosses are failed proposals; hollow points were pruned."
    chart = search_chart(progress, index.objective.name)
    return [
        element("h2", "Search", id="search"),
        element("p", note, class_="pale"),
        element("figure", chart),
    ]


def _parallel(index: SweepIndex) -> list[Element] | None:
    chart = parallel_chart(index)
    if chart is None:
        return None
    note = "Each line is a group; the best group is strong. Drag along an axis to select groups here and in the table."
    return [
        element("h2", "All settings together", id="parallel"),
        element("p", note, class_="pale script"),
        element("figure", chart),
    ]
