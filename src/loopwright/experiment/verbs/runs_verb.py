"""The command ``loopwright runs``, which lists the runs below a directory. It imports neither torch nor Hydra."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, check_count, on_one_line, refuse
from loopwright.experiment.console.command_line import CommandLine, command_on, shell_line, words_on
from loopwright.experiment.console.list_files import FORMATS, formatted
from loopwright.experiment.console.messages import output_width, tell
from loopwright.experiment.console.options import split_options
from loopwright.experiment.reading.conditions import meeting, read_condition
from loopwright.experiment.reading.entry import Entry, read_entries, read_jobs
from loopwright.experiment.reading.keys import FIELDS, Keys
from loopwright.experiment.reading.list_text import list_lines
from loopwright.experiment.reading.order import in_order
from loopwright.experiment.rundir.directory import OUTPUTS
from loopwright.records import find_checkpoints
from loopwright.terminal_text import wrapped

_OPTIONS = {"sort": "started", "limit": None, "columns": None, "sweeps": "closed", "format": "text"}
_MAX_NOTES = 5  # maximum number of lines about lost and unreadable runs below the table


def list_runs(line: CommandLine) -> int:
    """Print the runs below a directory, newest first, and write nothing.

    Raises:
        SettingError: for a wrong option or condition, and for an unknown key.
        CheckpointError: if the directory does not exist.
    """
    directory = Path(line.directories[0]) if line.directories else OUTPUTS
    if line.directories and not directory.is_dir():
        problem = "a file" if directory.exists() else "no such folder"
        raise CheckpointError(f"{on_one_line(str(directory))}: {problem}; expected a folder with runs.")
    options, words = split_options(line.overrides, _OPTIONS)
    limit = _limit(options["limit"])
    if options["format"] not in FORMATS:
        raise refuse("format", options["format"], "text, json, csv or md")
    if options["sweeps"] not in ("closed", "open"):
        raise refuse("sweeps", options["sweeps"], "open or closed")
    now = datetime.now(UTC)
    conditions = [read_condition(word, now) for word in words]

    found = read_entries(directory)
    jobs_of = _Jobs()
    if options["sweeps"] == "open":
        found = [each for entry in found for each in (jobs_of(entry) or (entry,))]
    needs_jobs = bool(conditions) or options["columns"] is not None
    jobs = [job for entry in found if entry.kind == "sweep" and needs_jobs for job in jobs_of(entry)]
    keys = Keys([*found, *jobs])
    more = {key: keys.find(key) for key in (options["columns"] or "").split(",") if key}
    chosen = in_order(meeting(found, conditions, keys, jobs_of), str(options["sort"]), keys)
    shown = chosen[:limit]
    if options["format"] == "text":
        tell("\n".join(_text(directory, found, chosen, shown, now, more)), wraps=False)
    else:
        finders = {**FIELDS, **more}
        rows = [{name: find(entry) for name, find in finders.items()} for entry in shown]
        tell(formatted(str(options["format"]), list(finders), rows), wraps=False)
    return 0


class _Jobs:
    """Returns the jobs of a sweep, which are read once. Of another entry, the result is empty."""

    def __init__(self) -> None:
        self._known: dict[Path, Sequence[Entry]] = {}

    def __call__(self, entry: Entry) -> Sequence[Entry]:
        if entry.kind != "sweep":
            return ()
        if entry.directory not in self._known:
            self._known[entry.directory] = read_jobs(entry)
        return self._known[entry.directory]


def _limit(given: str | None) -> int | None:
    if given is None:
        return None
    if not given.isdecimal():
        raise refuse("limit", given, "a whole number, 1 or more")
    return check_count("limit", int(given[:9]))


def _text(
    directory: Path,
    found: Sequence[Entry],
    chosen: Sequence[Entry],
    shown: Sequence[Entry],
    now: datetime,
    more: Mapping[str, Callable[[Entry], Any]],
) -> list[str]:
    """Return the table, and lines about runs that are not shown, lost or unreadable."""
    where = on_one_line(f"{directory}/")
    if not found:
        return [f"No runs in {where}. To train the default experiment: loopwright"]
    if not shown:
        return [f"None of the {len(found):,} runs in {where} meets these conditions."]
    width = output_width() if sys.stdout.isatty() else None
    lines = list_lines(shown, now=now, width=width, more=more)
    notes = (
        [f"{len(shown):,} of {len(chosen):,} runs; limit=N changes their number."] if len(shown) < len(chosen) else []
    )
    problems = [text for entry in shown if (text := _problem(entry)) is not None]
    notes += problems[:_MAX_NOTES]
    if len(problems) > _MAX_NOTES:
        notes.append(f"{len(problems) - _MAX_NOTES:,} more are lost or unreadable; see loopwright runs state=lost.")
    return [*lines, *(text if width is None else wrapped(text, width) for text in notes)]


def _problem(entry: Entry) -> str | None:
    """Return a line about a lost or unreadable run, with a command that resumes it."""
    if entry.state == "unreadable":
        return f"{on_one_line(entry.id)} is unreadable: {entry.error}"
    if entry.state != "lost":
        return None
    lost = f"{on_one_line(entry.id)} is lost (its process has ended)"
    if entry.kind == "sweep":
        return f"{lost}. Resume it: {shell_line(['loopwright', 'sweep', *words_on('resume', entry.directory, ())])}"
    if not find_checkpoints(entry.directory):
        return f"{lost}, and has no checkpoint to resume from; start it again."
    return f"{lost}. Resume it: {command_on('resume', entry.directory)}"
