"""Functions that format the lines of a sweep while it runs: its head, its jobs, and the line at the bottom."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from loopwright.errors import on_one_line
from loopwright.experiment.sweep.index import ENDED, JobEntry, SweepIndex
from loopwright.experiment.sweep.screen.following import (
    RunningJob,
    metric_text,
    num_jobs_of,
    num_proposals_of,
    progress_bar,
    progress_cells,
)
from loopwright.loggers.lines import duration_text, number_text

_WIDE = 100  # if the terminal has this many columns, three spaces separate the items of a line, otherwise two
_NARROWEST = 30  # a narrower terminal breaks the lines itself
_LEAST_COLUMNS = 36  # if fewer columns are left beside the label of a job, its items are put below the label
_MAX_ERROR_LINES = 5
# Choices for the line of a running job: the columns of the progress bar, and the indices of the shown items in the
# result of `progress_cells`. The first choice that fits is used.
_CHOICES: tuple[tuple[int, tuple[int, ...]], ...] = (
    (20, (0, 1, 2, 3)),
    (10, (0, 1, 2, 3)),
    (10, (0, 1, 3)),
    (10, (0, 1)),
    (10, (0, 3)),
    (10, (0,)),
)


def head(index: SweepIndex, num_parallel: int, threads: int, directory: Path) -> str:
    """Return two lines that describe the sweep.

    Args:
        index: index of the sweep.
        num_parallel: number of jobs that run at a time.
        threads: number of threads of each job.
        directory: directory of the sweep.
    """
    num_jobs, num_seeds, num_proposals = num_jobs_of(index), max(1, len(index.seeds)), num_proposals_of(index)
    keys = [factor.key for factor in index.factors]
    if num_proposals is not None:
        settings = ", ".join(keys) if len(keys) <= 3 else f"{len(keys)} settings"
        parts, num_groups = [f"{_counted(num_proposals, 'proposal')} of {settings}"], num_proposals
    else:
        nums = [len(factor.values or ()) for factor in index.factors]
        parts = [f"{_counted(num, 'value')} of {key}" for num, key in zip(nums, keys, strict=True)]
        num_groups = math.prod(nums)
    if num_seeds > 1 or not parts:
        parts.append(_counted(num_seeds, "seed"))
    what = (" × " if num_groups * num_seeds == num_jobs else ", ").join(parts)
    objective = f"objective {index.objective.name} ({index.objective.mode})"
    at_a_time = "one at a time" if num_parallel == 1 else f"{num_parallel} at a time"
    first = f"Sweep: {_counted(num_jobs, 'job')}, {what}; {objective}; {at_a_time}, {_counted(threads, 'thread')} each"
    return f"{first}\nDirectory: {directory}"


def job_labels(index: SweepIndex) -> dict[int, str]:
    """Return a label for each job, such as ``grad_accum_steps=1 seed=0``, by the number of the job.

    A key is shortened to its last part, or to as many parts as distinguish it from the other keys.
    """
    keys = [factor.key for factor in index.factors]
    names = _short_names([*keys, "seed"])
    labels = {}
    for job in index.jobs:
        typed = dict(word.lstrip("+").partition("=")[::2] for word in job.overrides)
        values = {**index.groups[job.group].values, **typed}
        words = [f"{names[key]}={values[key]}" for key in keys if key in values]
        labels[job.number] = on_one_line(" ".join([*words, f"seed={job.seed}"]))
    return labels


def job_line(entry: JobEntry, label: str, width: int | None, *, objective: str, number_width: int = 1) -> str:
    """Return the text about an ended job. The text has several lines if it is wider than the terminal.

    Args:
        entry: the job.
        label: label of the job. Spaces at its end align the items of several jobs.
        width: columns of the terminal. With None, the text is one line with all items.
        objective: name of the objective.
        number_width: columns for the number of the job.
    """
    first, gap, num_columns = _placed(entry.number, label, number_width, width)
    is_beside = "\n" not in first
    if entry.state == "failed":
        text = f"failed{gap}{error_text(entry)}"
        if width is None or len(text) <= num_columns:
            return first + text
        *above, indent = first.split("\n")
        wrapper = textwrap.TextWrapper(max(width, _NARROWEST), indent, break_on_hyphens=False)
        wrapper.subsequent_indent = " " * (8 + number_width if is_beside else 4)
        wrapper.max_lines, wrapper.placeholder = _MAX_ERROR_LINES, f"… {_log_of(entry)}"
        return "\n".join([*above, *wrapper.wrap(text)])
    state = entry.state.ljust(6) if is_beside else entry.state
    value = "" if entry.objective is None else metric_text(objective, entry.objective)
    steps, seconds = _steps_text(entry), duration_text(entry.seconds) if entry.attempts or entry.seconds else ""
    with_best = f"{value} {_best_text(entry)}".strip()
    choices = ((with_best, steps, seconds), (with_best, seconds), (value, steps, seconds), (value, seconds), (value,))
    lines = [gap.join(item for item in (state, *choice) if item) for choice in choices]
    return first + next((line for line in lines if len(line) <= num_columns), state).rstrip()


def logged_line(index: SweepIndex, entry: JobEntry) -> str:
    """Return the line of an ended job for a file, which has no limit of columns."""
    return job_line(entry, job_labels(index)[entry.number], None, objective=index.objective.name).strip()


def running_lines(
    jobs: Sequence[RunningJob], labels: Mapping[int, str], width: int, *, number_width: int = 1, tick: int = 0
) -> list[str]:
    """Return the text about each running job. The items of the jobs are aligned.

    Args:
        jobs: running jobs.
        labels: labels of the jobs by their numbers. Spaces at their ends align the items.
        width: columns of the terminal.
        number_width: columns for the numbers of the jobs.
        tick: counter that moves the bars of the jobs whose progress is unknown.
    """
    placed = [_placed(job.entry.number, labels[job.entry.number], number_width, width) for job in jobs]
    num_columns = min((columns for *_, columns in placed), default=0)
    cells = [progress_cells(job.progress) for job in jobs]
    widths = [max((len(items[at]) for items in cells), default=0) for at in range(4)]
    # Items become longer while the jobs run. The columns that they may need are reserved, so that the same items are
    # shown all the time.
    longest = max((2 * len(f"{job.progress.num_steps or 0:,}") + 1 for job in jobs), default=0)
    names = max((len(job.progress.metric or "") for job in jobs), default=0)
    reserved = [max(pair) for pair in zip(widths, (longest, names + 8, 11, 10), strict=True)]
    lines = []
    for job, (first, gap, _), items in zip(jobs, placed, cells, strict=True):
        fitting = (c for c in _CHOICES if c[0] + sum(len(gap) + reserved[at] for at in c[1]) <= num_columns)
        bar_width, shown = next(fitting, _CHOICES[-1])
        shown_items = ["no metrics yet", duration_text(job.seconds)]
        if any(items):
            shown_items = [items[0].rjust(widths[0]), *(items[at].ljust(widths[at]) for at in shown[1:] if widths[at])]
        lines.append(first + gap.join([progress_bar(job.progress, bar_width, tick), *shown_items]).rstrip())
    return lines


def bottom_line(index: SweepIndex, seconds: float, seconds_left: float | None, width: int) -> str:
    """Return the last line: how many jobs have ended, the time so far, and the time left.

    Args:
        index: index of the sweep.
        seconds: time since the sweep was started or resumed.
        seconds_left: estimated time until its end; None if unknown.
        width: columns of the terminal. The longest text that fits is returned.
    """
    num_ended = sum(job.state in ENDED for job in index.jobs)
    counts = [(sum(job.state == state for job in index.jobs), state) for state in ENDED[1:]]
    others = "".join(f", {num:,} {state}" for num, state in sorted(counts, key=lambda c: c[1]) if num)
    num_jobs, passed = num_jobs_of(index), duration_text(seconds)
    short = f"{num_ended:,} of {num_jobs:,} ended{others}"
    texts = [f"{num_ended:,} of {_counted(num_jobs, 'job')} ended{others} · {passed} so far", f"{short} · {passed}"]
    if seconds_left is not None:
        unit = 5 if seconds_left < 60 else 10 if seconds_left < 600 else 60
        left = duration_text(math.ceil(seconds_left / unit) * unit)  # rounded, so that it does not change all the time
        texts = [f"{texts[0]}, about {left} left", f"{texts[1]}, {left} left", *texts]
    return next((text for text in texts if len(text) <= width), short[:width])


def _placed(number: int, label: str, number_width: int, width: int | None) -> tuple[str, str, int]:
    """Return the text before the items of a job, the space between items, and the number of columns for the items.

    If the terminal is too narrow for a label and the items beside it, the text ends with a new line for the items.
    """
    gap = "   " if width is None or width >= _WIDE else "  "
    prefix = f"  job {number:>{number_width}}  "
    if width is None:
        return f"{prefix}{label}{gap}", gap, sys.maxsize
    num_columns = width - len(prefix) - len(label) - len(gap)
    if num_columns >= _LEAST_COLUMNS:
        return f"{prefix}{label}{gap}", gap, num_columns
    width = max(width, _NARROWEST)
    above = textwrap.wrap(label, width, initial_indent=prefix, subsequent_indent=" " * len(prefix))
    return "\n".join([*above, "    "]), gap, width - 4


def _best_text(entry: JobEntry) -> str:
    value, step = (entry.best or {}).get("value"), (entry.best or {}).get("step")
    if not isinstance(value, int | float) or not isinstance(step, int) or not math.isfinite(value):
        return ""
    return f"(best {number_text(value)} at {step:,})"


def _steps_text(entry: JobEntry) -> str:
    if not entry.global_step:
        return ""
    is_whole = entry.num_steps in (None, entry.global_step)
    return _counted(entry.global_step, "step") if is_whole else f"{entry.global_step:,} of {entry.num_steps:,} steps"


def error_text(entry: JobEntry) -> str:
    """Return the error of a failed job, followed by the path of the log in the directory of the sweep."""
    error = on_one_line(entry.error or "")
    return error if _log_of(entry) in error else f"{error} {_log_of(entry)}".strip()


def _log_of(entry: JobEntry) -> str:
    return f"({entry.directory}/run.log)"


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return each key shortened to its last parts, as few as distinguish it from the other keys."""
    parts = {key: key.split(".") for key in keys}
    names = {}
    for key, own in parts.items():
        lengths = range(1, len(own) + 1)
        is_own = (n for n in lengths if all(own[-n:] != other[-n:] for each, other in parts.items() if each != key))
        names[key] = ".".join(own[-next(is_own, len(own)) :])
    return names


def number_width_of(index: SweepIndex) -> int:
    """Return the number of digits of the largest job number."""
    return len(str(max(num_jobs_of(index) - 1, 0)))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
