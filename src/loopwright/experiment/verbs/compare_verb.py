"""The command ``loopwright compare DIR DIR …``, which shows what differs between runs or between sweeps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from loopwright.errors import SettingError, on_one_line, refuse
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.list_files import FORMATS, formatted
from loopwright.experiment.console.messages import output_width, tell
from loopwright.experiment.console.options import read_options
from loopwright.experiment.reading.comparison_list import comparison_list
from loopwright.experiment.reading.comparison_rows import FIELDS, run_rows
from loopwright.experiment.reading.comparison_text import comparison_lines
from loopwright.experiment.reading.sweep_comparison import (
    read_sweep_comparison,
    sweep_comparison_lines,
    sweep_rows,
)
from loopwright.experiment.rundir.find_run import find_run
from loopwright.records import SWEEP_FILE
from loopwright.records.comparison.run_comparison import compare_runs

_OPTIONS = {"all": "false", "format": "text"}
MAX_COLUMNS = 4  # more runs are shown as one line each


def compare(line: CommandLine) -> int:
    """Print what differs between runs, or between sweeps. Nothing is written.

    Raises:
        SettingError: for a wrong option, for a directory that is given twice, and for a run beside a sweep.
        CheckpointError: if a directory contains neither a run nor a sweep.
    """
    options = read_options(line.overrides, _OPTIONS)
    if options["format"] not in FORMATS:
        raise refuse("format", options["format"], "text, json, csv or md")
    if options["all"] not in ("true", "false"):
        raise refuse("all", options["all"], "true or false")
    directories = [Path(find_run(given)) for given in line.directories]
    are_sweeps = _check(line.directories, directories)
    text = _sweeps_text if are_sweeps else _runs_text
    tell(text(directories, str(options["format"]), shows_all=options["all"] == "true"), wraps=False)
    return 0


def _runs_text(directories: Sequence[Path], kind: str, *, shows_all: bool) -> str:
    found = compare_runs(directories)
    if kind != "text":
        return formatted(kind, [*FIELDS, *found.labels], list(run_rows(found)))
    show = comparison_lines if len(directories) <= MAX_COLUMNS else comparison_list
    return "\n".join(show(found, width=output_width(), shows_all=shows_all))


def _sweeps_text(directories: Sequence[Path], kind: str, *, shows_all: bool) -> str:
    found = read_sweep_comparison(directories)
    if kind != "text":
        return formatted(kind, [*FIELDS, *found.labels], list(sweep_rows(found)))
    return "\n".join(sweep_comparison_lines(found, width=output_width(), shows_all=shows_all))


def _check(given: Sequence[str], directories: Sequence[Path]) -> bool:
    """Return whether the directories contain sweeps. Refuse a directory that is given twice, and a run beside a sweep.

    Raises:
        SettingError: with a remedy.
    """
    for place, directory in enumerate(directories):
        if directory in directories[:place]:
            shown = on_one_line(str(directory))
            raise SettingError("compare", f": {shown} is given twice; expected different runs.")
    are_sweeps = [os.path.lexists(directory / SWEEP_FILE) for directory in directories]
    if len(set(are_sweeps)) > 1:
        run, sweep = (on_one_line(given[are_sweeps.index(each)]) for each in (False, True))
        problem = f"{run} is a run and {sweep} is a sweep; expected runs, such as {sweep}/0 for a job, or sweeps"
        raise SettingError("compare", f": {problem}.")
    return are_sweeps[0]
