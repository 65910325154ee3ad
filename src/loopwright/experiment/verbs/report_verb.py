"""The command ``loopwright report DIR``, which writes an HTML page about a run, a sweep or several runs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from loopwright.errors import CheckpointError, SettingError
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.options import read_options
from loopwright.experiment.reading.entry import run_entry
from loopwright.experiment.reading.next_commands import next_commands
from loopwright.experiment.rundir.find_run import find_run
from loopwright.experiment.rundir.run_report import REPORT_FILE, now_text, run_report
from loopwright.experiment.sweep.find_sweep import find_sweep
from loopwright.experiment.sweep.index_file import INDEX_FILE, read_index
from loopwright.experiment.sweep.page.sweep_page import sweep_page
from loopwright.experiment.sweep.reconcile import reconciled
from loopwright.experiment.sweep.tables.closing_lines import PAGE_FILE
from loopwright.records import find_checkpoints
from loopwright.records.report.compare_page import compare_page
from loopwright.records.report.run_files import read_run_files
from loopwright.records.report.uplot import read_uplot
from loopwright.regular_files import replace_file

_COMPARISON_FILE = "comparison.html"
_INTERACTIVE = "For interactive charts: pip install 'loopwright[report]'"


def report(line: CommandLine) -> int:
    """Write the page, and print its path.

    Raises:
        SettingError: for a wrong option, and if the page cannot be written.
        CheckpointError: if a directory contains no run.
    """
    options = read_options(line.overrides, {"output": None})
    directories = [Path(_find(given)) for given in line.directories]
    uplot = read_uplot()
    if len(directories) == 1:
        directory = directories[0]
        if (directory / INDEX_FILE).exists():
            index = reconciled(directory, read_index(directory))
            file, text = directory / PAGE_FILE, sweep_page(directory, index, uplot=uplot)
        else:
            file, text = directory / REPORT_FILE, run_report(directory, _commands(directory), uplot)
    else:
        file = Path(_COMPARISON_FILE)
        text = compare_page([read_run_files(each) for each in directories], now_text(), uplot)
    _write(Path(options["output"]) if options["output"] is not None else file, text)
    if uplot is None:
        tell(_INTERACTIVE)
    return 0


def _commands(directory: Path) -> dict[str, str]:
    """Return commands that continue or use a run, by label."""
    is_job = os.path.lexists(directory.parent / INDEX_FILE)
    has_checkpoint = bool(find_checkpoints(directory))
    commands = next_commands(
        run_entry(directory, "job" if is_job else "run"), is_job=is_job, has_checkpoint=has_checkpoint
    )
    return {label: command for label, command in commands.items() if label != "Report"}


def _find(given: str) -> str:
    """Return the directory that the user named. Six digits may name a run or a sweep."""
    try:
        return find_run(given)
    except CheckpointError:
        with suppress(CheckpointError):
            return find_sweep(given)
        raise


def _write(file: Path, text: str) -> None:
    """Write a page and print its path.

    Raises:
        SettingError: if the page cannot be written.
    """
    try:
        if file.is_dir():
            raise IsADirectoryError(21, os.strerror(21))
        replace_file(file, text.encode())
    except OSError as error:
        problem = f"={str(file)!r}: cannot be written ({error.strerror or error}); name a file with output=FILE."
        raise SettingError("output", problem) from None
    tell(f"Report: {file} ({len(text.encode()):,} bytes)")
