"""Functions that read and write ``sweep.json``, the index of a sweep.

The file can be read at any time, because every write replaces the whole file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, on_one_line
from loopwright.experiment.sweep.field_types import check_fields
from loopwright.experiment.sweep.index import (
    ENDED,
    SCHEMA,
    Attempt,
    BestGroup,
    Factor,
    Group,
    JobEntry,
    Objective,
    SweepIndex,
)
from loopwright.experiment.sweep.settings import read_sweep_settings
from loopwright.loggers.append_only import plain
from loopwright.records import read_record
from loopwright.regular_files import replace_file

INDEX_FILE = "sweep.json"
_STATES = ("pending", "running", "interrupted", *ENDED)
_SWEEP_STATES = ("running", "done", "failed", "interrupted")
_MAX_BYTES = 256 << 20
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def read_index(directory: Path) -> SweepIndex:
    """Read the index of a sweep.

    Raises:
        CheckpointError: if the directory contains no sweep, or if its index is damaged or of another version.
    """
    file = directory / INDEX_FILE
    data = read_record(file, _MAX_BYTES)
    if data is None:
        what = (
            "no such folder" if not directory.is_dir() else "a run" if _is_run(directory) else f"no {INDEX_FILE} in it"
        )
        raise CheckpointError(f"{on_one_line(str(directory))}: {what}; expected the directory of a sweep.")
    try:
        found = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise CheckpointError(f"{on_one_line(str(file))}: damaged; expected the index of a sweep.") from None
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        given = "an older version" if schema is None else f"schema {on_one_line(str(schema), 40)}"
        raise CheckpointError(f"{on_one_line(str(file))}: of {given}; expected schema {SCHEMA}.")
    try:
        return _from_json(found)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        problem = on_one_line(f"{type(error).__name__}: {error}", 200)
        raise CheckpointError(
            f"{on_one_line(str(file))}: damaged ({problem}); expected the index of a sweep."
        ) from None


def write_index(directory: Path, index: SweepIndex) -> None:
    """Replace ``sweep.json``.

    Raises:
        OSError: if the file cannot be written.
    """
    replace_file(directory / INDEX_FILE, index_text(index).encode())


def index_text(index: SweepIndex) -> str:
    """Return the index as JSON. Numbers that are not finite become the words "NaN", "Infinity" and "-Infinity"."""
    return json.dumps(plain(asdict(index)), indent=1, allow_nan=False) + "\n"


def _is_run(directory: Path) -> bool:
    return (directory / "config.yaml").is_file()


def _from_json(found: Mapping[str, Any]) -> SweepIndex:
    best = found["best"]
    index = SweepIndex(
        **{
            **_known(SweepIndex, found),
            **{name: tuple(found[name]) for name in ("command", "overrides", "trust", "seeds")},
            "objective": Objective(**found["objective"]),
            "factors": tuple(_factor(each) for each in found["factors"]),
            "groups": tuple(Group(**_with_numbers(_known(Group, each))) for each in found["groups"]),
            "best": None if best is None else _best_group(best),
            "jobs": tuple(_job(each) for each in found["jobs"]),
        }
    )
    _check(index)
    return index


def _check(index: SweepIndex) -> None:
    """Refuse an index with values of wrong types, and an index whose parts contradict one another.

    Raises:
        ValueError, TypeError: with a description of the problem.
    """
    check_fields(index)
    read_sweep_settings(index.settings)
    if [job.number for job in index.jobs] != list(range(len(index.jobs))):
        raise ValueError("jobs: expected the numbers 0, 1, 2, …")
    for job in index.jobs:
        if job.directory != str(job.number):
            raise ValueError(f"job {job.number}: expected the directory {job.number}")
        if job.state not in _STATES:
            raise ValueError(f"job {job.number}: unknown state")
        if not 0 <= job.group < len(index.groups):
            raise ValueError(f"job {job.number}: no such group")
    if index.state not in _SWEEP_STATES or index.objective.mode not in ("min", "max"):
        raise ValueError("unknown state or mode")
    if [group.number for group in index.groups] != list(range(len(index.groups))):
        raise ValueError("groups: expected the numbers 0, 1, 2, …")
    if index.best is not None and not 0 <= index.best.group < len(index.groups):
        raise ValueError("best: no such group")


def _known(kind: type, found: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: found[each.name] for each in fields(kind) if each.name in found}


def _with_numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    return {**found, **{name: _number(found[name]) for name in ("mean", "deviation")}}


def _best_group(found: Mapping[str, Any]) -> BestGroup:
    return BestGroup(**{**_with_numbers(found), "overrides": tuple(found["overrides"])})


def _factor(found: Mapping[str, Any]) -> Factor:
    values = found.get("values")
    return Factor(**{**_known(Factor, found), "values": None if values is None else tuple(values)})


def _job(found: Mapping[str, Any]) -> JobEntry:
    number = _number(found["objective"])
    return JobEntry(
        **{
            **_known(JobEntry, found),
            "overrides": tuple(found["overrides"]),
            "notes": tuple(found.get("notes", ())),
            "changes": {path: tuple(pair) for path, pair in found.get("changes", {}).items()},
            "objective": number,
            "metrics": {str(name): _number(value) for name, value in found["metrics"].items()},
            "attempts": tuple(Attempt(**_known(Attempt, each)) for each in found["attempts"]),
        }
    )


def _number(value: Any) -> float | None:
    """Return a number of the index. Numbers that are not finite are words there."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return _NOT_FINITE[value]
