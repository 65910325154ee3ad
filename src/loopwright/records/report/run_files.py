"""`RunFiles`, what a report shows of the files of a run. Missing and unreadable files are left out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError
from loopwright.records.last_values import with_logged
from loopwright.records.report.masks import masked
from loopwright.records.run_record import RunRecord, checkpoint_step, find_checkpoints, read_run
from loopwright.records.series import TIMING_FILE, Series, read_mapping, read_record, read_series

_MAX_TEXT_BYTES = 200_000
_MAX_LOG_LINES = 200
_MAX_LOG_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint folder: its name, its step, and its size."""

    name: str
    step: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """What a report shows of a run.

    Attributes:
        run: content of the summary; for a run that has recorded no end, with its last logged values.
        series: metrics by name.
        hours: steps, and the hours of training until each of these steps.
        steps_per_second: rate at the last log step; None if it is unknown.
        samples_per_step: samples in a full step; None if they are unknown.
        config: text of ``config.yaml``.
        plan: text of ``plan.txt``.
        environment: content of ``environment.json``.
        diff: beginning of ``git.diff``.
        log: last lines of ``run.log``.
        checkpoints: checkpoints in ascending order of their steps.
        files: names and sizes of the files and folders in the run directory.
    """

    run: RunRecord
    series: Mapping[str, Series]
    hours: tuple[Sequence[float], Sequence[float]] | None
    steps_per_second: float | None
    samples_per_step: int | None
    config: str
    plan: str
    environment: Mapping[str, Any]
    diff: str
    log: str
    checkpoints: Sequence[Checkpoint]
    files: Sequence[tuple[str, int]]


def read_run_files(directory: Path) -> RunFiles:
    """Read the files of a run that a report shows. Nothing is written.

    Raises:
        CheckpointError: if the directory contains no run, and if ``metrics.jsonl`` cannot be read.
    """
    run = with_logged(read_run(directory))
    timing = _series(directory, TIMING_FILE)
    plan = _mapping(directory / "plan.json")
    rate = timing["train/steps_per_second"].values[-1] if "train/steps_per_second" in timing else None
    return RunFiles(
        run=run,
        series=read_series(directory),
        hours=_hours(timing.get("train/seconds")),
        steps_per_second=rate,
        samples_per_step=_samples_per_step(plan),
        config=_text(directory / "config.yaml"),
        plan=_text(directory / "plan.txt"),
        environment=_mapping(directory / "environment.json"),
        diff=_text(directory / "git.diff"),
        log=_last_lines(directory / "run.log"),
        checkpoints=[
            Checkpoint(each.name, checkpoint_step(each.name), _size(each)) for each in find_checkpoints(directory)
        ],
        files=_files(directory),
    )


def _series(directory: Path, file: str) -> dict[str, Series]:
    try:
        return read_series(directory, file)
    except CheckpointError:
        return {}


def _mapping(file: Path) -> dict[str, Any]:
    try:
        return read_mapping(file)
    except CheckpointError:
        return {}


def _text(file: Path) -> str:
    """Return the beginning of a text file with masked secrets; an empty text if it cannot be read."""
    try:
        data = read_record(file, _MAX_LOG_BYTES) or b""
    except CheckpointError:
        return ""
    text = masked(data[:_MAX_TEXT_BYTES].decode(errors="replace"))
    return (
        text if len(data) <= _MAX_TEXT_BYTES else f"{text}\n… {len(data) - _MAX_TEXT_BYTES:,} more bytes in {file.name}"
    )


def _last_lines(file: Path) -> str:
    try:
        data = read_record(file, _MAX_LOG_BYTES) or b""
    except CheckpointError:
        return ""
    lines = data[-_MAX_TEXT_BYTES:].decode(errors="replace").splitlines()
    return masked("\n".join(lines[-_MAX_LOG_LINES:]))


def _hours(seconds: Series | None) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return the hours of training until each log step. A timing that is not finite counts as no time."""
    if seconds is None:
        return None
    points = seconds.finite
    return [step for step, _ in points], [each / 3600 for each in accumulate(max(0.0, value) for _, value in points)]


def _samples_per_step(plan: Mapping[str, Any]) -> int | None:
    settings, size = plan.get("settings"), plan.get("batch_size")
    accumulated = settings.get("loop.grad_accum_steps") if isinstance(settings, Mapping) else None
    return size * accumulated if type(size) is int and type(accumulated) is int else None


def _size(folder: Path) -> int:
    """Return the number of bytes in a folder. Symbolic links are not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:  # the file was removed
                continue
    return total


def _files(directory: Path) -> list[tuple[str, int]]:
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                size = _size(Path(entry.path)) if is_folder else entry.stat(follow_symlinks=False).st_size
                found.append((f"{entry.name}/" if is_folder else entry.name, size))
    except OSError:
        return []
    return sorted(found)
