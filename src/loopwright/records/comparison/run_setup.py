"""`RunSetup`, what a run was made from: its configuration, its environment, its source code and its data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from loopwright.errors import CheckpointError
from loopwright.records.config_file import config_leaves, read_config
from loopwright.records.environments import read_environment
from loopwright.records.run_record import RunRecord
from loopwright.records.series import read_record

DIFF_FILE = "git.diff"
_MAX_DIFF_BYTES = 256 << 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """What a run was made from. A part that the run did not record, or that cannot be read, is None.

    Attributes:
        configuration: settings by their path, and the chosen option of each recorded group, such as ``model``.
        environment: content of ``environment.json``.
        diff: number of lines of ``git.diff`` and its SHA-256; None if the run recorded no uncommitted changes.
        data: facts about the data by their path, such as digests.
        problems: one line for each file that cannot be read.
    """

    configuration: Mapping[str, Any] | None
    environment: Mapping[str, Any] | None
    diff: tuple[int, str] | None
    data: Mapping[str, Any] | None
    problems: tuple[str, ...]


def read_setup(run: RunRecord) -> RunSetup:
    """Read what a run was made from. Nothing is written, and a file that cannot be read raises no error."""
    problems: list[str] = []
    config = _known(read_config, run, problems)
    data = run.summary.get("data")
    return RunSetup(
        configuration=None if config is None else {**run.chosen, **dict(config_leaves(config))},
        environment=_known(read_environment, run, problems),
        diff=_known(_read_diff, run, problems),
        data=dict(config_leaves(data)) if isinstance(data, Mapping) and data else None,
        problems=tuple(problems),
    )


def _known(read: Callable[[Path], T], run: RunRecord, problems: list[str]) -> T | None:
    """Return what ``read`` returns for a run directory; None if it is empty or cannot be read."""
    try:
        return read(run.directory) or None
    except CheckpointError as error:
        problems.append(str(error))
        return None


def _read_diff(directory: Path) -> tuple[int, str] | None:
    text = read_record(directory / DIFF_FILE, _MAX_DIFF_BYTES)
    if not text:
        return None
    return text.count(b"\n") + (not text.endswith(b"\n")), hashlib.sha256(text).hexdigest()
