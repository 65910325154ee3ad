"""`run_report`, which returns the HTML page of a run, with the commands that continue or use the run.

This module imports neither torch nor Hydra, so that commands that only read can use it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from loopwright.experiment.console.command_line import command_on
from loopwright.records import RunRecord, find_checkpoints
from loopwright.records.report.run_files import read_run_files
from loopwright.records.report.run_page import run_page
from loopwright.records.report.uplot import UPlot, read_uplot
from loopwright.regular_files import replace_file

REPORT_FILE = "report.html"


def write_run_report(directory: Path) -> None:
    """Write ``report.html`` into a run directory.

    Raises:
        CheckpointError: if the directory contains no run.
        OSError: if the page cannot be written.
    """
    replace_file(directory / REPORT_FILE, run_report(directory, read_uplot()).encode())


def run_report(directory: Path, uplot: UPlot | None) -> str:
    """Return the report of a run as HTML.

    Raises:
        CheckpointError: if the directory contains no run.
    """
    files = read_run_files(directory)
    return run_page(files, next_commands(files.run), now_text(), uplot)


def next_commands(run: RunRecord) -> list[tuple[str, str]]:
    """Return labels and commands that continue or use a run."""
    flags = permissions_of(run)
    if not find_checkpoints(run.directory):
        return [("Reproduce", command_on("reproduce", run.directory, flags))] if run.is_complete else []
    longer = [f"loop.max_steps={2 * run.num_steps}"] if run.is_complete and run.num_steps else []
    commands = [] if run.state == "running" else [("Resume", command_on("resume", run.directory, flags, *longer))]
    commands.append(("Validate", command_on("validate", run.directory, flags)))
    if run.is_complete:
        commands.append(("Reproduce", command_on("reproduce", run.directory, flags)))
    return commands


def permissions_of(run: RunRecord) -> Sequence[str]:
    """Return the flags ``--trust`` and ``--allow-env`` of the command that started a run."""
    try:
        words = shlex.split(run.command or "")
    except ValueError:  # the summary may contain any text
        return []
    found = []
    for index, word in enumerate(words):
        if word.startswith(("--trust=", "--allow-env=")):
            found.append(word)
        elif word in ("--trust", "--allow-env") and index + 1 < len(words):
            found.append(f"{word}={words[index + 1]}")
    return found


def now_text() -> str:
    """Return the current time as it is shown in a page."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
