"""`compare_page`, which makes one page of several runs: curves of each metric together, and settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loopwright.records.panels import Panel
from loopwright.records.report.axis import number_text
from loopwright.records.report.builder import element
from loopwright.records.report.charts import Charts
from loopwright.records.report.masks import HIDDEN, is_secret
from loopwright.records.report.parts import MAX_PANELS, controls, left_out, state_badge, value_text
from loopwright.records.report.run_files import RunFiles
from loopwright.records.report.shell import document
from loopwright.records.report.tables import Cell, data_table, duration_text
from loopwright.records.report.uplot import UPlot

_MAX_METRICS = 6  # columns of the table of runs


def compare_page(runs: Sequence[RunFiles], drawn: str, uplot: UPlot | None) -> str:
    """Return a page that compares several runs as HTML.

    Args:
        runs: what the files of each run show.
        drawn: time at which the page is made.
        uplot: script for interactive charts; None: the charts are SVG only.
    """
    names = list(dict.fromkeys(name for files in runs for name in files.series))
    panels = [_panel(name, runs) for name in names]
    charts = Charts(panels[:MAX_PANELS])
    styles = {_label(files): index for index, files in enumerate(runs)}
    figures = [charts.figure(panel, styles) for panel in panels[:MAX_PANELS]]
    title = f"{len(runs)} runs"
    content: list[Any] = [
        element(
            "header",
            element("div", element("h1", title), element("button", "Dark", type="button", id="theme", class_="script"),
                    class_="top"),
            element("p", f"Drawn {drawn}.", class_="pale"),
        ),
        _table(runs),
        element("h2", "Metrics", id="metrics"),
        controls(),
        element("div", figures, class_="charts") if figures else element("p", "These runs have logged no metrics."),
        left_out(len(panels)),
        element("h2", "Settings that differ", id="settings"),
        _settings(runs),
        element("footer", f"Made by Loopwright, {drawn}."),
    ]  # fmt: skip
    return document(title, content, data={"charts": charts.data}, uplot=uplot)


def _label(files: RunFiles) -> str:
    return files.run.id


def _panel(name: str, runs: Sequence[RunFiles]) -> Panel:
    return Panel(name, {_label(files): files.series[name] for files in runs if name in files.series})


def _table(runs: Sequence[RunFiles]) -> Any:
    metrics = list(dict.fromkeys(name for files in runs for name in files.run.metrics))
    metrics.sort(key=lambda name: not name.startswith("val/"))
    metrics = metrics[:_MAX_METRICS]
    rows = []
    for files in runs:
        run = files.run
        values = [run.metrics.get(name) for name in metrics]
        rows.append(
            [
                Cell(element("code", run.id)),
                Cell(run.name),
                Cell(state_badge(run.state), run.state),
                Cell(f"{run.global_step:,}", run.global_step, is_number=True),
                *(Cell("" if each is None else number_text(each), each, is_number=True) for each in values),
                Cell("" if run.best is None else number_text(run.best.value),
                     None if run.best is None else run.best.value, is_number=True),
                Cell(duration_text(run.seconds), run.seconds, is_number=True),
            ]
        )  # fmt: skip
    objective = runs[0].run.objective_name
    return data_table("runs", ["run", "name", "state", "steps", *metrics, f"best {objective}", "time"], rows)


def _settings(runs: Sequence[RunFiles]) -> Any:
    """Return a table of the settings that differ. A run without a change has the configured value."""
    paths = list(dict.fromkeys(path for files in runs for path in files.run.changes))
    rows = []
    for path in paths:
        configured = next(files.run.changes[path][0] for files in runs if path in files.run.changes)
        values = [files.run.changes.get(path, (None, configured))[1] for files in runs]
        if any(value != values[0] for value in values):
            texts = [HIDDEN if is_secret(path) else value_text(value) for value in values]
            rows.append([Cell(element("code", path)), *(Cell(element("code", text), text) for text in texts)])
    if not rows:
        return element("p", "The runs have the same changes of their experiments.")
    return data_table("settings", ["setting", *(_label(files) for files in runs)], rows)
