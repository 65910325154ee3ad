"""`run_text`, which returns what ``loopwright show`` prints of one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.cells import cell_len

from loopwright.errors import on_one_line, printable
from loopwright.experiment.reading.run_view import RunView, best_of
from loopwright.experiment.reading.texts import changes_text, number_text, sparkline, when_text
from loopwright.loggers.lines import duration_text, rate_text
from loopwright.terminal_text import wrapped

_MAX_METRICS = 12
_MAX_CHECKPOINTS = 6
_MAX_SPARKLINE = 40
_LEAST_SPARKLINE = 8
_GAP = "   "


def run_text(view: RunView, *, now: datetime, width: int) -> str:
    """Return the state, the numbers and the metrics of a run, and commands for the next steps.

    Args:
        view: run.
        now: current time, with which times are compared.
        width: width of the terminal in characters.
    """
    entry = view.entry
    lines = [f"{entry.name} {entry.id}: {_state(view)}", f"  {entry.directory}", ""]
    rows = list(_rows(view, now))
    label_width = max((len(label) for label, _ in rows), default=0)
    lines += [f"  {label:<{label_width}}{_GAP}{text}" for label, text in rows]
    head = [part for line in lines for part in wrapped(printable(line, keeps_newlines=False), width).split("\n")]
    metrics = [printable(line, keeps_newlines=False) for line in _metric_lines(view, width)]
    steps = [wrapped(f"{label}: {command}", width) for label, command in view.commands.items()]
    return "\n".join([*head, *([""] if metrics else []), *metrics, *([""] if steps else []), *steps])


def _state(view: RunView) -> str:
    """Return the state in words, such as ``interrupted at step 640 of 2,000``."""
    entry = view.entry
    if entry.state == "unreadable":
        return f"unreadable; {entry.error}"
    of = "" if entry.num_steps is None else f" of {entry.num_steps:,}"
    step = f"step {entry.global_step:,}{of}"
    if entry.state == "completed":
        return "completed" if entry.num_steps is None else f"completed at {step}"
    if entry.state == "stopped":
        return f"stopped at {step}" + (f", because {view.stop_reason}" if view.stop_reason else "")
    if entry.state == "lost":
        return f"lost at {step}; its process has ended without recording an end"
    if entry.state in ("pending", "skipped"):
        return entry.state
    return f"{entry.state} at {step}"


def _rows(view: RunView, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield the label and the text of each row above the metrics."""
    entry = view.entry
    if entry.objective is not None:
        best = "" if entry.best is None else f", best {number_text(entry.best)} at step {entry.best_step:,}"
        yield entry.objective_name, f"{number_text(entry.objective)}{best}"
    times = []
    if entry.state == "running" and entry.started is not None:
        times.append(f"{duration_text(max(0.0, (now - entry.started).total_seconds()))} so far")
    elif entry.seconds and 0 < entry.seconds < 1e10:
        times.append(duration_text(entry.seconds) if entry.seconds >= 10 else f"{entry.seconds:.2g} s")
    if view.steps_per_second is not None:
        times.append(rate_text(view.steps_per_second))
    if entry.started is not None:
        time = f"{entry.started.astimezone():%Y-%m-%d %H:%M}"
        when = when_text(entry.started, now)
        times.append(f"started {time}" if time.startswith(when) else f"started {when} ({time})")
    if times:
        yield "time", ", ".join(times)
    if entry.resumes:
        named = f", from {', '.join(view.resumed_from)}" if view.resumed_from else ""
        yield "resumed", f"{entry.resumes} time{'s' if entry.resumes > 1 else ''}{named}"
    if changes := changes_text(entry):
        yield "not as configured", " ".join(changes)
    if entry.origin is not None:
        yield "from", entry.origin
    if view.checkpoints:
        yield "checkpoints", _checkpoints_text(view.checkpoints)
    if entry.error is not None and entry.state not in ("unreadable", "completed"):
        yield "error", on_one_line(entry.error, 500)
    if view.problem is not None:
        yield "metrics", view.problem
    if entry.command is not None:
        yield "command", entry.command


def _checkpoints_text(checkpoints: Sequence[tuple[int, int]]) -> str:
    steps = [f"{step:,}" for step, _ in checkpoints]
    hidden = len(steps) - _MAX_CHECKPOINTS
    if hidden > 0:
        steps = [steps[0], "…", *steps[hidden + 2 :]]
    total = sum(size for _, size in checkpoints)
    number = f"{len(checkpoints)}, " if len(checkpoints) > 1 else ""
    return f"{number}at step {', '.join(steps)}; {_bytes_text(total)}"


def _bytes_text(num_bytes: int) -> str:
    """Format a size, such as ``1.2 MB``."""
    value = float(num_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 99.5 else f"{value:.2g} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def _metric_lines(view: RunView, width: int) -> list[str]:
    """Return a table with the first, the last and the best value of each metric, and a sparkline."""
    shown = list(view.series.values())[:_MAX_METRICS]
    if not shown:
        return []
    found = [best_of(series, view.entry) for series in shown]
    best = [("" if each is None else number_text(each[1])) for each in found]
    steps = [("" if each is None else f"{each[0]:,}") for each in found]
    columns = [
        ["metric", *(series.name for series in shown)],
        ["first", *(number_text(series.values[0]) for series in shown)],
        ["last", *(number_text(series.values[-1]) for series in shown)],
        ["best", *best],
        ["at step", *steps],
    ]
    for dispensable in (4, 3, 1):  # columns that are left out in a narrow terminal
        if 2 + sum(map(_width, columns)) + len(_GAP) * len(columns) + _LEAST_SPARKLINE > width:
            del columns[dispensable]
    left = width - 2 - sum(map(_width, columns)) - len(_GAP) * len(columns)
    size = max(_LEAST_SPARKLINE, min(_MAX_SPARKLINE, left))
    lines = [sparkline(series.steps, series.values, size) for series in shown]
    columns.append(["course", *lines])
    rows = zip(*([_padded(text, _width(column)) for text in column] for column in columns), strict=True)
    hidden = len(view.series) - len(shown)
    more = [f"  and {hidden} more metric{'s' if hidden > 1 else ''}; format=json lists all"] if hidden else []
    return [*(f"  {_GAP.join(row)}".rstrip() for row in rows), *more]


def _width(column: Sequence[str]) -> int:
    return max(map(cell_len, column))


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
