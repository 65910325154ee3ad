"""The command ``loopwright show``, which shows one run or one sweep. It imports neither torch nor Hydra."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loopwright.errors import refuse
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.list_files import plain_value
from loopwright.experiment.console.messages import output_width, tell
from loopwright.experiment.console.options import read_options
from loopwright.experiment.reading.keys import FIELDS
from loopwright.experiment.reading.run_text import run_text
from loopwright.experiment.reading.run_view import RunView, best_of, read_view
from loopwright.experiment.rundir.find_run import find_run
from loopwright.experiment.verbs.sweep_show_verb import show_sweep
from loopwright.records import SWEEP_FILE


def show(line: CommandLine) -> int:
    """Print what a run directory shows, and write nothing. A sweep is shown as by ``loopwright sweep show``.

    Raises:
        SettingError: for a wrong option.
        CheckpointError: if there is no such run.
    """
    directory = Path(find_run(line.directories[0]))
    if os.path.lexists(directory / SWEEP_FILE):
        return show_sweep(replace(line, directory=str(directory)))
    options = read_options(line.overrides, {"format": "text"})
    if options["format"] not in ("text", "json"):
        raise refuse("format", options["format"], "text or json")
    view = read_view(directory)
    if options["format"] == "json":
        tell(json.dumps(plain_value(_fields(view)), indent=1), wraps=False)
        return 0
    tell(run_text(view, now=datetime.now(UTC), width=output_width()), wraps=False)
    return 0


def _fields(view: RunView) -> dict[str, Any]:
    """Return the fields of ``loopwright runs format=json``, and further fields."""
    metrics = {}
    for name, series in view.series.items():
        best = best_of(series, view.entry)
        metrics[name] = {
            "first": series.values[0],
            "last": series.values[-1],
            "last_step": series.steps[-1],
            "best": None if best is None else best[1],
            "best_step": None if best is None else best[0],
        }
    return {
        **{name: find(view.entry) for name, find in FIELDS.items()},
        "stop_reason": view.stop_reason,
        "steps_per_second": view.steps_per_second,
        "resumed_from": view.resumed_from,
        "checkpoints": [{"step": step, "num_bytes": size} for step, size in view.checkpoints],
        "metrics": metrics,
        "commands": view.commands,
    }
