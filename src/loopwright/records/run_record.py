"""`RunRecord`, which contains what the files of a run directory show, and functions that find and read runs.

A run directory may come from an untrusted source. Values of other types than a run writes are ignored, and no file of
the directory is changed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, on_one_line
from loopwright.records.checkpoint_folders import step_folder, steps_in
from loopwright.records.series import SUMMARY_FILE, read_mapping, read_summary
from loopwright.run_lock import is_locked

STATES = ("completed", "stopped", "interrupted", "failed", "running", "lost", "unreadable")
SWEEP_FILE = "sweep.json"
_CONFIG_FILE = "config.yaml"
_RUN_ID = re.compile(r"_([0-9a-f]{6})(?:_sweep)?$")
_STEP_FOLDER = re.compile(r"step_\d{8,18}")
_MANIFEST = "manifest.json"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_YEARS = range(1970, 9000)  # other times can overflow when they are converted to the local time
_MAX_TEXT = 1000  # characters of a text of a summary


@dataclass(frozen=True, slots=True)
class BestValue:
    """The best value of a metric: its name, the value, and the ``global_step`` at which it was logged."""

    name: str
    value: float
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a run directory shows.

    Attributes:
        directory: path of the run directory.
        state: entry of `STATES`. A run is "lost" if its summary says "running" and no process holds its lock. A run is
            "unreadable" if its summary is missing or damaged.
        problem: why the summary cannot be read; otherwise, None.
        started: time at which the run began; None if it is unknown.
        ended: time at which the run ended; None while it runs.
        seconds: duration of the run over all resumes.
        global_step: steps that the run has completed.
        num_steps: last step of the plan of the run; None if the run does not train.
        objective_name: name of the metric that is the result of the run.
        objective_mode: "min" or "max"; None if it is unknown.
        objective: last value of the objective; None if it was not logged.
        best: best value of the objective.
        metrics: last value of each metric by name.
        changes: for each changed setting, the configured value and the value of the run.
        chosen: chosen option of each configuration group that a run records, such as ``model``.
        command: command line that started the run.
        cwd: directory in which the command was typed.
        error: error that ended the run; None if there is none.
        stop_reason: why a callback stopped the run; None if no callback did.
        resumes: number of resumes.
        weights_sha256: digest of the final weights; None if they are unknown.
        summary: content of ``summary.json``. Values in it have any type.
    """

    directory: Path
    state: str
    problem: str | None
    started: datetime | None
    ended: datetime | None
    seconds: float
    global_step: int
    num_steps: int | None
    objective_name: str
    objective_mode: str | None
    objective: float | None
    best: BestValue | None
    metrics: Mapping[str, float]
    changes: Mapping[str, tuple[Any, Any]]
    chosen: Mapping[str, str]
    command: str | None
    cwd: str | None
    error: str | None
    stop_reason: str | None
    resumes: int
    weights_sha256: str | None
    summary: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Six digits at the end of the directory's name, with the number of the job in a sweep, such as ``1a2b3c/0``.

        If the user typed the directory, its name.
        """
        return run_id(self.directory)

    @property
    def name(self) -> str:
        """Name of the experiment, ``NAME`` in ``outputs/NAME/RUN``. If the user typed the directory, its name."""
        folder = self.directory.parent if self.is_job else self.directory
        return folder.parent.name if _RUN_ID.search(folder.name) else folder.name

    @property
    def is_job(self) -> bool:
        """Whether the run is a job of a sweep."""
        return os.path.lexists(self.directory.parent / SWEEP_FILE)

    @property
    def is_complete(self) -> bool:
        """Whether the run has reached its end, or a callback has stopped it."""
        return self.state in ("completed", "stopped")


def read_run(directory: Path) -> RunRecord:
    """Read what a run directory shows.

    Raises:
        CheckpointError: if the directory contains neither a summary nor a configuration.
    """
    if not is_run(directory):
        what = "no such folder" if not os.path.lexists(directory) else "no run" if directory.is_dir() else "a file"
        raise CheckpointError(f"{on_one_line(str(directory))}: {what}; expected a run directory.")
    summary: dict[str, Any] = {}
    problem = None
    try:
        summary = read_summary(directory)
        problem = None if summary else f"{SUMMARY_FILE}: missing or damaged"
    except CheckpointError as error:
        problem = on_one_line(str(error), _MAX_TEXT)
    state = summary.get("state")
    if state == "running" and not is_locked(directory):
        state = "lost"
    if state not in STATES:
        state, problem = "unreadable", problem or f"{SUMMARY_FILE}: contains no state"
    stop, metrics = summary.get("stop"), _numbers(summary.get("metrics"))
    objective_name = _text(summary.get("objective_name")) or "val/loss"
    objective = as_number(summary.get("objective"))
    resumes = summary.get("resumes")
    return RunRecord(
        directory=directory,
        state=state,
        problem=problem,
        started=_time(summary.get("started")),
        ended=_time(summary.get("ended")),
        seconds=as_number(summary.get("seconds")) or 0.0,
        global_step=_count(summary.get("global_step")) or 0,
        num_steps=read_num_steps(directory),
        objective_name=objective_name,
        objective_mode=mode if (mode := summary.get("objective_mode")) in ("min", "max") else None,
        objective=metrics.get(objective_name) if objective is None else objective,  # a failed run records only metrics
        best=_best(summary.get("best")),
        metrics=metrics,
        changes=_changes(summary.get("changes")),
        chosen=_texts(summary.get("chosen")),
        command=_text(summary.get("command")),
        cwd=_text(summary.get("cwd")),
        error=_text(summary.get("error")),
        stop_reason=_text(stop.get("reason")) if isinstance(stop, Mapping) else None,
        resumes=len(resumes) if isinstance(resumes, list) else 0,
        weights_sha256=_text(summary.get("weights_sha256")),
        summary=summary,
    )


def find_runs(outputs: Path) -> tuple[list[Path], list[Path]]:
    """Return the directories of all runs and of all sweeps below a directory.

    The jobs of a sweep are not listed as runs. Symbolic links are not followed. A directory is searched to the depth of
    ``outputs/NAME/RUN``, or is itself a run or a sweep.
    """
    runs: list[Path] = []
    sweeps: list[Path] = []
    for directory in _levels(outputs, 2):
        if os.path.lexists(directory / SWEEP_FILE):
            sweeps.append(directory)
        elif is_run(directory):
            runs.append(directory)
    return runs, sweeps


def is_run(directory: Path) -> bool:
    """Return whether a directory contains a run."""
    return os.path.lexists(directory / SUMMARY_FILE) or os.path.lexists(directory / _CONFIG_FILE)


def run_id(directory: Path) -> str:
    """Return the six digits at the end of a directory's name, or the name if it has none; see `RunRecord.id`."""
    found = _RUN_ID.search(directory.name)
    if found is not None:
        return found[1]
    above = _RUN_ID.search(directory.parent.name)
    return f"{above[1]}/{directory.name}" if above is not None and directory.name.isdigit() else directory.name


def has_run_id(name: str) -> bool:
    """Return whether a directory has a name that Loopwright gives to runs and sweeps, with six digits at its end."""
    return _RUN_ID.search(name) is not None


def read_num_steps(run_dir: Path) -> int | None:
    """Return the last step in the plan of a run; None if the run does not train, or has not begun."""
    try:
        settings = read_mapping(run_dir / "plan.json").get("settings")
    except CheckpointError:
        return None
    return _count(settings.get("stop_step")) if isinstance(settings, Mapping) else None


def find_checkpoints(run_dir: Path) -> list[Path]:
    """Return the checkpoint folders of a run that have a manifest, in ascending order of their steps."""
    try:
        folders = [step_folder(run_dir, step) for step in sorted(steps_in(run_dir))]
    except OSError:
        return []
    return [folder for folder in folders if (folder / _MANIFEST).is_file()]


def is_checkpoint_name(name: object) -> bool:
    """Return whether a value is the name of a checkpoint folder, such as ``step_00000100``."""
    return isinstance(name, str) and _STEP_FOLDER.fullmatch(name) is not None


def checkpoint_step(name: str) -> int:
    """Return the ``global_step`` in the name of a checkpoint folder, such as ``step_00000100``."""
    return int(name.removeprefix("step_"))


def as_number(value: object) -> float | None:
    """Return a number of a JSON file; None for other values. NaN and infinite numbers are words in these files."""
    if isinstance(value, str):
        return _NOT_FINITE.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _levels(directory: Path, depth: int) -> Iterator[Path]:
    """Yield a directory and the directories below it, except those below a run or a sweep."""
    yield directory
    if depth == 0 or is_run(directory) or os.path.lexists(directory / SWEEP_FILE):
        return
    try:
        with os.scandir(directory) as entries:
            below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for each in sorted(below):
        yield from _levels(each, depth - 1)


def _time(value: object) -> datetime | None:
    """Return a time with an offset from UTC. Texts of other forms, and years that no run has, are ignored."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None and found.year in _YEARS else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _text(value: object) -> str | None:
    return on_one_line(value, _MAX_TEXT) if isinstance(value, str) else None


def _texts(value: object) -> dict[str, str]:
    items = value.items() if isinstance(value, Mapping) else ()
    return {str(key): on_one_line(each, _MAX_TEXT) for key, each in items if isinstance(each, str)}


def _numbers(value: object) -> dict[str, float]:
    items = value.items() if isinstance(value, Mapping) else ()
    return {str(key): number for key, each in items if (number := as_number(each)) is not None}


def _changes(value: object) -> dict[str, tuple[Any, Any]]:
    items = value.items() if isinstance(value, Mapping) else ()
    return {str(key): (pair[0], pair[1]) for key, pair in items if isinstance(pair, list) and len(pair) == 2}


def _best(value: object) -> BestValue | None:
    if not isinstance(value, Mapping):
        return None
    name, number, step = _text(value.get("name")), as_number(value.get("value")), _count(value.get("step"))
    return None if name is None or number is None or step is None else BestValue(name, number, step)
