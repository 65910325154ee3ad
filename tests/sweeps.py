"""Functions that read and change the index of a sweep in tests of commands."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TIMES = ("seconds",)


def index_of(directory: Path) -> dict[str, Any]:
    """Return the content of ``sweep.json``."""
    found = json.loads((directory / "sweep.json").read_text())
    assert isinstance(found, dict)
    return found


def states_of(directory: Path) -> list[str]:
    """Return the states of all jobs."""
    return [job["state"] for job in index_of(directory)["jobs"]]


def change_index(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of ``sweep.json``."""
    found = index_of(directory)
    change(found)
    (directory / "sweep.json").write_text(json.dumps(found))


def results_of(directory: Path) -> list[dict[str, str]]:
    """Return the rows of ``sweep.csv`` without durations. They contain metrics and digests of weights."""
    rows = list(csv.DictReader((directory / "sweep.csv").read_text().splitlines()))
    return [{name: value for name, value in row.items() if name not in _TIMES} for row in rows]


def as_killed(directory: Path, number: int, *, keeps: int = 0) -> None:
    """Change the files of a job as if its process had been killed, and the runner with it.

    Args:
        directory: directory of the sweep.
        number: number of the job, which is done.
        keeps: number of checkpoints that the job has saved.
    """
    _change(directory, number, keeps, {"state": "running"}, {"ended": None, "end": None, "exit_code": None})
    change_index(directory, lambda index: index.update(state="running"))


def as_failed(directory: Path, number: int, *, keeps: int = 0, error: str = "E: x", end: str = "raised") -> None:
    """Change the files of a job as if it had failed. It also has the arguments of `as_killed`."""
    _change(directory, number, keeps, {"state": "failed", "error": error}, {"end": end, "exit_code": 1})
    change_index(directory, lambda index: index.update(state="failed"))


def _change(directory: Path, number: int, keeps: int, state: dict[str, Any], attempt: dict[str, Any]) -> None:
    blank = {"objective": None, "metrics": {}, "weights_sha256": None, **state}

    def change(index: dict[str, Any]) -> None:
        index["jobs"][number].update(blank)
        index["jobs"][number]["attempts"][-1].update(attempt)

    change_index(directory, change)
    run_dir = directory / str(number)
    summary = json.loads((run_dir / "summary.json").read_text())
    (run_dir / "summary.json").write_text(json.dumps({**summary, **blank}))
    for folder in sorted((run_dir / "checkpoints").iterdir())[keeps:]:
        shutil.rmtree(folder)
