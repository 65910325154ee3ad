"""`run_page`, which makes the report of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loopwright.records.panels import RATE, Panel, panels_of, sources_of
from loopwright.records.report.axis import number_text
from loopwright.records.report.builder import Element, element
from loopwright.records.report.charts import Charts
from loopwright.records.report.parts import MAX_PANELS, change_texts, controls, left_out, state_badge
from loopwright.records.report.run_files import RunFiles
from loopwright.records.report.run_sections import (
    checkpoint_section,
    configuration_section,
    origin_section,
    validation_section,
)
from loopwright.records.report.shell import document
from loopwright.records.report.svg_chart import Mark
from loopwright.records.report.tables import command, duration_text
from loopwright.records.report.uplot import UPlot
from loopwright.records.run_record import RunRecord

_MAX_CHECKPOINT_MARKS = 200
_MAX_CHANGES = 12  # in the head of the page
_LOST = "The process has ended without recording an end. All values are from the last log step."


def run_page(files: RunFiles, commands: Sequence[tuple[str, str]], drawn: str, uplot: UPlot | None) -> str:
    """Return the report of a run as HTML.

    Args:
        files: what the files of the run show.
        commands: labels and commands that continue or use the run.
        drawn: time at which the page is made.
        uplot: script for interactive charts; None: the charts are SVG only.
    """
    run = files.run
    panels = panels_of(files.series)
    charts = Charts(panels[:MAX_PANELS])
    marks = _marks(files)
    styles = _styles(panels)
    figures = [charts.figure(panel, styles, _marks_of(panel, run, marks)) for panel in panels[:MAX_PANELS]]
    main = _main_panels(panels, run)
    content = [
        _head(run, drawn),
        _facts(files),
        element("div", [charts.figure(each, styles, _marks_of(each, run, marks), has_numbers=False) for each in main],
                class_="charts main"),
        element("div", [command(label, text) for label, text in commands], class_="commands"),
        element("h2", "Metrics", id="metrics"),
        controls(has_samples=files.samples_per_step is not None, has_hours=files.hours is not None),
        element("div", figures, class_="charts") if figures else element("p", "This run has logged no metrics."),
        left_out(len(panels)),
        validation_section(run),
        configuration_section(files),
        checkpoint_section(files),
        origin_section(files),
        element("footer", f"Made by Loopwright, {drawn}."),
    ]  # fmt: skip
    data: dict[str, Any] = {"charts": charts.data, "samples_per_step": files.samples_per_step, "hours": files.hours}
    return document(f"{run.name} {run.id}", content, data=data, uplot=uplot)


def _head(run: RunRecord, drawn: str) -> Element:
    changes = change_texts(run.changes)
    shown = [element("li", text, class_="mono") for text in changes[:_MAX_CHANGES]]
    if len(changes) > _MAX_CHANGES:
        shown.append(element("li", f"and {len(changes) - _MAX_CHANGES} more"))
    started = "" if run.started is None else run.started.strftime("%Y-%m-%d %H:%M")
    notes = [started, f"resumed {run.resumes} times" if run.resumes > 1 else "resumed once" if run.resumes else ""]
    if run.state == "running":
        notes.append(f"drawn at {drawn} while the run continued")
    reason = run.error or run.stop_reason or run.problem or (_LOST if run.state == "lost" else None)
    return element(
        "header",
        element(
            "div",
            element("div", element("h1", f"{run.name} ", element("span", run.id, class_="pale mono"))),
            element("button", "Dark", type="button", id="theme", class_="script"),
            class_="top",
        ),
        element("p", state_badge(run.state), " ", element("span", " · ".join(filter(None, notes)), class_="pale")),
        element("p", reason, class_="bad" if run.error else "pale") if reason else None,
        element("ul", shown, class_="changes") if shown else None,
    )


def _facts(files: RunFiles) -> Element:
    run = files.run
    best = run.best
    of = f"of {run.num_steps:,}" if run.num_steps and run.num_steps != run.global_step else None
    rate = files.steps_per_second
    speed = None if not rate else f"{number_text(rate)} steps/s" if rate >= 1 else f"{number_text(1 / rate)} s a step"
    samples = None if files.samples_per_step is None else run.global_step * files.samples_per_step
    facts: list[tuple[str, str | None, str | None]] = [
        (run.objective_name, "–" if run.objective is None else number_text(run.objective), "last"),
        (f"best {best.name}", number_text(best.value), f"at step {best.step:,}") if best else ("", None, None),
        ("steps", f"{run.global_step:,}", of),
        ("samples", None if samples is None else f"{samples:,}", "about"),
        ("time", duration_text(run.seconds), None) if run.ended is not None or run.seconds else _logged_time(files),
        ("rate", speed, None),
    ]
    parts = [element("div", element("dt", name), element("dd", value, element("small", note) if note else None))
             for name, value, note in facts if value is not None]  # fmt: skip
    return element("dl", parts, class_="facts")


def _logged_time(files: RunFiles) -> tuple[str, str | None, str | None]:
    """Return the training time until the last log step, for a run that has recorded no end."""
    hours = files.hours[1] if files.hours is not None else ()
    return "training time", duration_text(hours[-1] * 3600) if hours else None, None


def _styles(panels: Sequence[Panel]) -> dict[str, int]:
    """Return the index of the colour of each source: ``train`` has the first colour."""
    return {source: index + 1 for source, index in sources_of(panels).items()}


def _main_panels(panels: Sequence[Panel], run: RunRecord) -> list[Panel]:
    """Return the panel of the objective and one further panel."""
    source, _, key = run.objective_name.rpartition("/")
    first = next((panel for panel in panels if panel.title == key and source in panel.series), None)
    rest = [panel for panel in panels if panel is not first]
    rest.sort(key=lambda panel: (panel.title == RATE, "val" not in panel.series))
    return ([first] if first is not None else []) + rest[: 1 if first is not None else 2]


def _marks(files: RunFiles) -> list[Mark]:
    """Return the marks of checkpoints and resumes. Of many checkpoints, none are marked."""
    marks = []
    if len(files.checkpoints) <= _MAX_CHECKPOINT_MARKS:
        marks = [Mark(kind="checkpoint", x=each.step, text=f"checkpoint {each.name}") for each in files.checkpoints]
    resumes = files.run.summary.get("resumes")
    for each in resumes if isinstance(resumes, list) else []:
        name = each.get("checkpoint") if isinstance(each, Mapping) else None
        digits = str(name).removeprefix("step_")
        if digits.isdigit() and len(digits) <= 18:
            marks.append(Mark(kind="resume", x=int(digits), text=f"resumed from step {int(digits):,}"))
    return marks


def _marks_of(panel: Panel, run: RunRecord, marks: Sequence[Mark]) -> list[Mark]:
    """Return the marks of the run within the steps of a panel, and the best value if the panel contains it."""
    last = max((one.steps[-1] for one in panel.series.values() if one.steps), default=0)
    first = min((one.steps[0] for one in panel.series.values() if one.steps), default=0)
    found = [mark for mark in marks if first <= mark.x <= last]
    if run.best is not None:
        source, _, key = run.best.name.rpartition("/")
        if panel.title == key and source in panel.series:
            text = f"best: {number_text(run.best.value)} at step {run.best.step:,}"
            found.append(Mark(kind="best", x=run.best.step, y=run.best.value, text=text))
    return found
