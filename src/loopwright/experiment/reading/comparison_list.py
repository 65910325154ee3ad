"""`comparison_list`, which returns what ``loopwright compare`` prints of many runs, with one line for each run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from loopwright.errors import on_one_line
from loopwright.experiment.reading.comparison_text import (
    MAX_ROWS,
    clear_differences,
    difference_texts,
    note_lines,
    packages_text,
    seconds_text,
)
from loopwright.experiment.reading.entry import Entry, run_entry
from loopwright.experiment.reading.list_text import list_lines
from loopwright.records.comparison.metric_values import MetricValues
from loopwright.records.comparison.run_comparison import RunComparison
from loopwright.records.comparison.setup_differences import CONFIGURATION, NOT_SET, PACKAGES, SECTIONS, Difference
from loopwright.terminal_text import wrapped

_MAX_METRICS = 2  # further validation metrics, unless all are shown


def comparison_list(found: RunComparison, *, width: int, shows_all: bool) -> list[str]:
    """Return a table with one line for each run, and below it, what differs between the environments and the data.

    Args:
        found: runs to compare.
        width: width of the terminal in characters.
        shows_all: whether every package, metric and setting that differs is shown.
    """
    settings = [each for each in clear_differences(found) if each.section == CONFIGURATION and each.name != "name"]
    shown = settings if shows_all else settings[:MAX_ROWS]
    entries = [_entry(found, place, shown) for place in range(len(found.runs))]
    more: dict[str, Callable[[Entry], Any]] = {"time": lambda entry: seconds_text(entry.seconds or 0.0)}
    objectives = {run.objective_name for run in found.runs}
    metrics = [each for each in found.metrics if each.name not in objectives]
    for metric in metrics if shows_all else [each for each in metrics if each.name.startswith("val/")][:_MAX_METRICS]:
        more[metric.name] = _last_of(metric, {run.directory: place for place, run in enumerate(found.runs)})
    lines = list_lines(entries, now=datetime.now(UTC), width=width, more=more, changed="differs in")
    if len(shown) < len(settings):
        lines.append(f"  and {len(settings) - len(shown):,} more settings; all=true shows all")
    for name in SECTIONS:
        others = [each for each in found.differences if each.section == name and name != CONFIGURATION]
        if name == PACKAGES and others and not shows_all:
            lines += ["", *wrapped(packages_text(others), width).split("\n")]
        elif others:
            lines += ["", name, *(line for each in others for line in _by_value(each, found.labels, width))]
    return [*lines, *note_lines(found.differences, found.missing, found.problems, len(found.runs), width)]


def _entry(found: RunComparison, place: int, settings: Sequence[Difference]) -> Entry:
    """Return the entry of a run, whose changes are the settings that differ between the runs."""
    values = {each.name: (None, each.values[place]) for each in settings if each.values[place] is not NOT_SET}
    entry = run_entry(found.runs[place].directory)
    return replace(entry, id=found.labels[place], started=None, changes=values)


def _last_of(metric: MetricValues, places: dict[Path, int]) -> Callable[[Entry], Any]:
    return lambda entry: metric.last[places[entry.directory]]


def _by_value(difference: Difference, labels: Sequence[str], width: int) -> Iterator[str]:
    """Yield the name of a difference, and for each of its values a line with the runs that have this value."""
    yield f"  {on_one_line(difference.name)}"
    by_text: dict[str, list[str]] = {}
    for text, label in zip(difference_texts(difference), labels, strict=True):
        by_text.setdefault(text, []).append(on_one_line(label))
    most = max(map(cell_len, by_text))
    for text, having in by_text.items():
        yield from wrapped(f"    {text}{' ' * (most - cell_len(text))}   {', '.join(having)}", width).split("\n")
