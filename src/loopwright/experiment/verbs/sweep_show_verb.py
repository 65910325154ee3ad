"""The command ``loopwright sweep show DIR``, which prints the results of a sweep. It imports no torch."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from loopwright.errors import SettingError, refuse
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import output_width, tell
from loopwright.experiment.console.options import read_options
from loopwright.experiment.sweep.find_sweep import read_jobs, read_sweep_directory
from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.index_file import index_text, read_index
from loopwright.experiment.sweep.reconcile import reconciled
from loopwright.experiment.sweep.tables.result_files import csv_text, markdown_text
from loopwright.experiment.sweep.tables.results_table import results_text

_FORMATS = ("text", "json", "csv", "md")
_OPTIONS = {"format": "text", "sort": None, "jobs": None, "watch": "false"}
_WATCH_SECONDS = 1.0


def show_sweep(line: CommandLine) -> int:
    """Print the current results of a sweep. No file is written.

    Raises:
        SettingError: for a wrong option.
        CheckpointError: if the directory contains no sweep, or its index cannot be read.
    """
    assert line.directory is not None
    directory, options = read_sweep_directory(line.directory), read_options(line.overrides, _OPTIONS)
    if options["format"] not in _FORMATS:
        raise refuse("format", options["format"], "text, json, csv or md")
    if options["watch"] not in ("true", "false"):
        raise refuse("watch", options["watch"], "true or false")
    if options["watch"] == "true":
        return _watch(directory, options)
    index = reconciled(directory, read_index(directory))
    tell(_text(directory, index, options), wraps=False)
    return 0


def _text(directory: Path, index: SweepIndex, options: dict[str, str | None]) -> str:
    jobs = read_jobs(options["jobs"], index)
    kind = options["format"]
    if kind == "text":
        return results_text(index, str(directory), width=output_width(), sort=options["sort"], jobs=jobs)
    if options["sort"] is not None or jobs is not None:
        raise SettingError(f"format={kind}", ": contains all jobs in their order; use it without sort and jobs.")
    if kind == "json":
        return index_text(index).rstrip("\n")
    return (csv_text(index) if kind == "csv" else markdown_text(index, str(directory))).rstrip("\n")


def _watch(directory: Path, options: dict[str, str | None]) -> int:
    """Print the results once a second until the sweep has ended. Ctrl-C ends only this command."""
    with Live(console=Console(), refresh_per_second=2) as live:
        try:
            while True:
                index = reconciled(directory, read_index(directory))
                live.update(Text(_text(directory, index, options)))
                if not any(job.state in ("running", "pending") for job in index.jobs):
                    return 0
                time.sleep(_WATCH_SECONDS)
        except KeyboardInterrupt:
            return 0
