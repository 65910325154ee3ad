"""Functions that return the lines below the table of a sweep: failures, a summary, and commands for the next steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from loopwright.errors import printable
from loopwright.experiment.console.command_line import shell_line, words_on
from loopwright.experiment.sweep.index import SweepIndex, counts_samples, tied_with
from loopwright.loggers.lines import duration_text

CSV_FILE = "sweep.csv"
MARKDOWN_FILE = "sweep.md"
PAGE_FILE = "sweep.html"
_STATES = ("failed", "pruned", "interrupted", "skipped", "running", "pending")
_MAX_TIED = 5  # maximum number of groups that the line about ties names
_THREADS = "device.num_threads"


def failure_lines(
    index: SweepIndex, *, jobs: Collection[int] | None = None, shown: Collection[int] | None = None
) -> list[str]:
    """Return one line for each failed job, with its error.

    Args:
        index: index of the sweep.
        jobs: numbers of the jobs to report; None: all jobs.
        shown: numbers of the groups in the table. The lines of jobs in other groups contain the overrides of
            their groups. None: all groups.
    """
    lines = []
    for job in index.jobs:
        if job.state != "failed" or (jobs is not None and job.number not in jobs):
            continue
        is_shown = shown is None or job.group in shown
        name = f"job {job.number}" if is_shown else f"job {job.number} ({index.groups[job.group].label})"
        lines.append(f"{name} failed: {job.error or 'unknown error'} ({job.directory}/run.log)")
    return [printable(line, keeps_newlines=False) for line in lines]


def summary_line(index: SweepIndex) -> str:
    """Return the number of jobs in each state, the duration of the sweep and the best group."""
    counts = Counter(job.state for job in index.jobs)
    parts = [f"{counts['done']} of {len(index.jobs)} job{'s' if len(index.jobs) > 1 else ''} done"]
    parts += [f"{counts[state]} {state}" for state in _STATES if counts[state]]
    duration = None if index.state == "running" else _duration(index)
    line = f"{', '.join(parts)}{'' if duration is None else f', in {duration}'}."
    if index.best is not None and len(index.groups) > 1:
        line += f" Best: {index.groups[index.best.group].label}"
    return printable(line, keeps_newlines=False)


def tie_line(index: SweepIndex) -> str | None:
    """Return a line about the groups at most one standard error worse than the best mean; None if there is no tie."""
    num_jobs = Counter(job.group for job in index.jobs)
    whole = [group for group in index.groups if group.mean is not None and group.num_done == num_jobs[group.number]]
    if index.best is None or not whole:
        return None
    sign = -1.0 if index.objective.mode == "max" else 1.0
    first = min(whole, key=lambda group: sign * (group.mean or 0.0))
    tied = sorted(tied_with(first, whole, sign), key=lambda group: sign * (group.mean or 0.0))
    if len(tied) < 2:
        return None
    labels = "; ".join(group.label for group in tied[:_MAX_TIED])
    more = f"; and {len(tied) - _MAX_TIED} more" if len(tied) > _MAX_TIED else ""
    measure = "samples" if counts_samples(index.jobs) else "steps"
    reason = "" if index.best.group == first.number else f" The best group is the one with the fewest {measure}."
    return printable(f"Tied within one standard error: {labels}{more}.{reason}", keeps_newlines=False)


def best_command(index: SweepIndex, num_threads: int | None) -> str | None:
    """Return the shell command that runs the best group with its first seed; None if there is no best group.

    Args:
        index: index of the sweep.
        num_threads: number of threads of the jobs, for ``device.num_threads``; None if it is unknown.
    """
    if index.best is None:
        return None
    flags = [] if index.config_dir is None else [f"--config-dir={index.config_dir}"]
    seed = index.jobs_of(index.best.group)[0].seed
    words = [*index.best.overrides, f"seed={seed}"]
    if num_threads is not None and not any(word.startswith(f"{_THREADS}=") for word in words):
        words.append(f"{_THREADS}={num_threads}")
    return shell_line(["loopwright", *flags, *index.trust, *words])


def next_steps(index: SweepIndex, directory: str, *, num_threads: int | None, width: int) -> list[str]:
    """Return the lines with the files of the sweep, and with the commands for the next steps.

    Args:
        index: index of the sweep.
        directory: directory of the sweep, as it is printed.
        num_threads: number of threads of the jobs; None if it is unknown.
        width: width of the terminal in characters. An item that does not fit begins a new line.
    """
    page = Path(directory, PAGE_FILE)
    parts = [f"Pictures: {shell_line([str(page)])}"] if page.exists() else []
    parts.append(f"Tables: {CSV_FILE}, {MARKDOWN_FILE}")
    command = best_command(index, num_threads) if len(index.groups) > 1 else None
    if command is not None:
        parts.append(f"Run the best: {command}")
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += f"   {part}"
        else:
            lines.append(part)
    if index.state == "running":
        return lines
    states = {job.state for job in index.jobs}
    if "failed" in states:
        lines.append(f"Retry what failed: {sweep_command('retry', index, directory)}")
    if states & {"pending", "interrupted", "running", "skipped"}:
        lines.append(f"Resume: {sweep_command('resume', index, directory)}")
    return lines


def sweep_command(verb: str, index: SweepIndex, directory: str) -> str:
    """Return the shell command that applies a verb, such as ``retry``, to a sweep."""
    return shell_line(["loopwright", "sweep", *words_on(verb, Path(directory), index.trust)])


def _duration(index: SweepIndex) -> str | None:
    """Return the time from the creation of the sweep to the end of the last attempt; None if it is unknown."""
    ended = [attempt.ended for job in index.jobs for attempt in job.attempts if attempt.ended is not None]
    try:
        seconds = (max(map(datetime.fromisoformat, ended)) - datetime.fromisoformat(index.created)).total_seconds()
    except (ValueError, TypeError):  # no attempt has ended, or a time is damaged or lacks its zone
        return None
    return duration_text(max(0.0, seconds))
