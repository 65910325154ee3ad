"""Sections of the report of a run below its charts: configuration, plan, checkpoints, environment, log and files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from loopwright.records.report.axis import number_text
from loopwright.records.report.builder import Element, element
from loopwright.records.report.masks import HIDDEN, is_secret, masked
from loopwright.records.report.run_files import RunFiles
from loopwright.records.report.tables import Cell, data_table, size_text
from loopwright.records.run_record import RunRecord, as_number

_MAX_METRICS = 6  # columns of a table of checkpoints


def configuration_section(files: RunFiles) -> list[Element | None]:
    """Return the changed settings, the command, the whole configuration and the plan."""
    rows = [
        [Cell(element("code", path)), Cell(_value(path, before)), Cell(_value(path, after))]
        for path, (before, after) in files.run.changes.items()
    ]
    table = data_table("changes", ["setting", "configured", "in this run"], rows) if rows else None
    return [
        element("h2", "Configuration", id="configuration"),
        table or element("p", "All settings have the values of the experiment."),
        _folded("Command", masked(files.run.command or ""), is_open=True),
        _folded("All settings (config.yaml)", files.config),
        _folded("Plan (plan.txt)", files.plan),
    ]


def validation_section(run: RunRecord) -> list[Element]:
    """Return a table of the validated checkpoints; an empty list if the run has validated fewer than two."""
    found = run.summary.get("rows")
    rows = [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []
    metrics = [row["metrics"] if isinstance(row.get("metrics"), Mapping) else {} for row in rows]
    names = list(dict.fromkeys(str(name) for each in metrics for name in each))[:_MAX_METRICS]
    if len(rows) < 2:
        return []
    cells = [
        [
            Cell(element("code", str(row.get("checkpoint"))), str(row.get("checkpoint"))),
            Cell(str(row.get("dataloader"))),
            *(_metric(as_number(each.get(name))) for name in names),
        ]
        for row, each in zip(rows, metrics, strict=True)
    ]
    values = [as_number(each.get(run.objective_name)) for each in metrics]
    known = [(value, index) for index, value in enumerate(values) if value is not None and math.isfinite(value)]
    best = (max if run.objective_mode == "max" else min)(known)[1] if known else None
    return [
        element("h2", "Validated checkpoints", id="validations-section"),
        data_table("validations", ["checkpoint", "dataloader", *names], cells, best=best),
    ]


def checkpoint_section(files: RunFiles) -> list[Element | None]:
    """Return the checkpoints with their sizes and the metrics at their steps."""
    run = files.run
    names = [name for name in run.metrics if name in files.series][:_MAX_METRICS]
    values = {name: dict(zip(files.series[name].steps, files.series[name].values, strict=True)) for name in names}
    best = None if run.best is None else run.best.step
    rows = [
        [
            Cell(f"{each.step:,}", each.step, is_number=True),
            Cell(element("code", each.name)),
            Cell(size_text(each.num_bytes), each.num_bytes, is_number=True),
            *(_metric(values[name].get(each.step)) for name in names),
            Cell("best" if each.step == best else "newest" if each is files.checkpoints[-1] else ""),
        ]
        for each in files.checkpoints
    ]
    at = next((index for index, each in enumerate(files.checkpoints) if each.step == best), None)
    table = data_table("checkpoints", ["step", "folder", "size", *names, "note"], rows, best=at)
    return [
        element("h2", "Checkpoints", id="checkpoints-section"),
        table if rows else element("p", "This run has saved no checkpoint."),
    ]


def origin_section(files: RunFiles) -> list[Element | None]:
    """Return the environment, the data, the origin of the weights, the source, the log and the files."""
    summary, environment = files.run.summary, files.environment
    facts = {
        "directory": str(files.run.directory),
        "working directory": files.run.cwd or "",
        **{name: environment[name] for name in ("loopwright", "python", "torch", "platform") if name in environment},
        **{name: each for name, each in environment.items() if name not in _SHOWN_ALONE and not isinstance(each, list)},
        "weights (SHA-256)": files.run.weights_sha256 or "",
    }
    rows = [
        [Cell(name), Cell(element("code", _json(value)))] for name, value in facts.items() if value not in ("", None)
    ]
    packages = environment.get("packages")
    return [
        element("h2", "Environment, data and files", id="environment"),
        data_table("facts", ["name", "value"], rows),
        _folded("Packages", _lines(packages)),
        _folded("Data", _lines(summary.get("data"))),
        _folded("Checkpoints from which the weights come", _lines(summary.get("origins"))),
        _folded("Resumes", _json(summary.get("resumes") or None)),
        _folded("Uncommitted changes of the source (git.diff)", files.diff),
        _folded("Log: the last lines of run.log", files.log, is_open=bool(files.run.error)),
        _files_table(files),
    ]


_SHOWN_ALONE = ("packages", "loopwright", "python", "torch", "platform")


def _files_table(files: RunFiles) -> Element:
    rows = [
        [Cell(element("code", name), name), Cell(size_text(size), size, is_number=True)] for name, size in files.files
    ]
    return element("details", element("summary", "Files"), data_table("files", ["file", "size"], rows), class_="block")


def _folded(title: str, text: str, *, is_open: bool = False) -> Element | None:
    if not text.strip():
        return None
    return element("details", element("summary", title), element("pre", text, tabindex=0), class_="block", open=is_open)


def _metric(value: float | None) -> Cell:
    return Cell("", "", is_number=True) if value is None else Cell(number_text(value), repr(value), is_number=True)


def _value(path: str, value: Any) -> Element:
    return element("code", HIDDEN if is_secret(path) else _json(value))


def _lines(value: object) -> str:
    if not isinstance(value, Mapping):
        return ""
    return masked("\n".join(f"{name}: {_json(each)}" for name, each in value.items()))


def _json(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
