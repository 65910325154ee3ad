"""`next_commands`, which returns the commands that a user can run next on a run that has left its directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError
from loopwright.experiment.console.command_line import command_on, shell_line, words_on
from loopwright.experiment.console.reading_verbs import READING_VERBS
from loopwright.experiment.jobs.job_settings import OVERFITS, VALIDATION_LOOPS, callbacks_of
from loopwright.experiment.reading.entry import Entry
from loopwright.plan import longer_setting
from loopwright.records import read_config, read_encoding, read_mapping, reads_new_samples

_LENGTHS = ("num_steps", "num_epochs", "max_steps")
_UNFINISHED = ("interrupted", "failed", "lost")


def next_commands(entry: Entry, *, is_job: bool, has_checkpoint: bool) -> dict[str, str]:
    """Return shell commands by label. The packages that a configuration names must be trusted again by the user.

    Args:
        entry: run.
        is_job: whether the run is a job of a sweep.
        has_checkpoint: whether the run has a checkpoint.
    """
    directory, commands = entry.directory, {}
    config = _config(directory)
    is_resumable = has_checkpoint and not _overfits(config)
    if is_job and entry.state in (*_UNFINISHED, "pending", "skipped"):
        verb, label = ("retry", "Retry") if entry.state == "failed" else ("resume", "Resume the sweep")
        words = [f"jobs={directory.name}"] if verb == "retry" else []
        commands[label] = shell_line(["loopwright", "sweep", *words_on(verb, directory.parent, ()), *words])
    elif entry.state in _UNFINISHED and is_resumable:
        commands["Resume"] = command_on("resume", directory)
    elif entry.state == "completed" and is_resumable and (longer := _longer(directory, config)) is not None:
        commands["Train for longer"] = command_on("resume", directory, (), longer)
    if has_checkpoint and entry.state != "running":
        commands["Validate"] = command_on("validate", directory)
        if reads_new_samples(_encoding(directory)):
            commands["Predict for new data"] = command_on("predict", directory, (), "data.path=FILE")
    if entry.state in ("completed", "stopped") and not _only_validates(config):
        commands["Reproduce"] = command_on("reproduce", directory)
    if "report" in READING_VERBS and entry.state != "unreadable":
        commands["Report"] = command_on("report", directory)
    return commands


def _config(directory: Path) -> dict[str, Any]:
    try:
        return read_config(directory)
    except CheckpointError:
        return {}


def _encoding(directory: Path) -> dict[str, Any] | None:
    try:
        return read_encoding(directory)
    except CheckpointError:
        return None


def _overfits(config: Mapping[str, Any]) -> bool:
    """Return whether the run repeats one batch, which no checkpoint contains."""
    return isinstance(config.get("callbacks"), dict) and bool(callbacks_of(config, OVERFITS))


def _only_validates(config: Mapping[str, Any]) -> bool:
    loop = config.get("loop")
    return isinstance(loop, dict) and loop.get("_target_") in VALIDATION_LOOPS


def _longer(directory: Path, config: Mapping[str, Any]) -> str | None:
    """Return the override that doubles the length of a run; None if the length is not in the configuration."""
    try:
        settings = read_mapping(directory / "plan.json").get("settings")
    except CheckpointError:
        return None
    loop = config.get("loop")
    if not isinstance(settings, dict) or not isinstance(loop, dict):
        return None
    num_steps, num_epochs, max_steps = (_count(settings.get(f"loop.{name}")) for name in _LENGTHS)
    stop_step = _count(settings.get("stop_step"))
    if stop_step is None:
        return None
    name, value = longer_setting(num_steps, num_epochs, max_steps, stop_step)
    # A function of the user may have built the loop with another length than the configured length.
    return f"loop.{name}={value}" if loop.get(name) == settings.get(f"loop.{name}") else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 < value < 2**63 else None
