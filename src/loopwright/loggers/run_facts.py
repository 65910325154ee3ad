"""`RunFacts`, which contains what loggers send about a run beside its metrics, and functions that read it.

The facts are read from the run directory and from the directory of its sweep, in which Loopwright has written them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, on_one_line
from loopwright.records import SWEEP_FILE, config_leaves, read_config, read_mapping, read_summary
from loopwright.records.report.masks import HIDDEN, is_secret

_MAX_LABEL = 200  # characters of the label of a group


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What loggers send about a run beside its metrics.

    Attributes:
        run_name: name of the run's folder. For a job of a sweep: name of the sweep's folder, and number of the job.
        sweep: name of the sweep's folder; None if the run is not a job of a sweep.
        sweep_dir: directory of the sweep; None if the run is not a job of a sweep.
        label: overrides that distinguish the group of a job from the other groups of its sweep; otherwise, empty.
        experiment: setting ``name`` of the configuration; "loopwright" if the run has no configuration.
        config: recorded configuration. Values of secret settings are hidden. A value of an environment variable is
            recorded as ``${oc.env:NAME}``.
        factors: value of each factor of a sweep that the job overrides, by path.
        changes: value of each setting that differs from the configuration of the experiment, by path.
        objective: name of the metric that is the result of the run.
    """

    run_name: str
    sweep: str | None
    sweep_dir: Path | None
    label: str
    experiment: str
    config: Mapping[str, Any]
    factors: Mapping[str, Any]
    changes: Mapping[str, Any]
    objective: str


def read_facts(run_dir: Path) -> RunFacts:
    """Read what loggers send about a run. What cannot be read is left out."""
    run_dir = run_dir.resolve()
    is_job = (run_dir.parent / SWEEP_FILE).is_file()
    label, factors = _read_group(run_dir) if is_job else ("", {})
    config = _config_of(run_dir)
    return RunFacts(
        run_name=_job_name(run_dir) if is_job else run_dir.name,
        sweep=run_dir.parent.name if is_job else None,
        sweep_dir=run_dir.parent if is_job else None,
        label=label,
        experiment=str(config.get("name") or "loopwright"),
        config=without_secrets(config),
        factors=without_secrets(factors),
        changes=without_secrets(_changes_of(run_dir)),
        objective=str(config.get("objective") or "val/loss"),
    )


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in which the values of secret settings are hidden.

    >>> without_secrets({"data": {"api_key": "abc", "path": "x.csv"}, "hub.token": 1})
    {'data': {'api_key': '•••', 'path': 'x.csv'}, 'hub.token': '•••'}
    """
    return {key: HIDDEN if is_secret(key) and value is not None else _inner(value) for key, value in config.items()}


def leaves_as_text(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the path and the value of each setting, as text.

    >>> leaves_as_text({"model": {"width": 4, "name": "a"}, "scheduler": None})
    {'model.width': '4', 'model.name': 'a', 'scheduler': 'null'}
    """
    return {path: as_text(value) for path, value in config_leaves(config)}


def as_text(value: object) -> str:
    """Return a value of a configuration as text: a string unchanged, and other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _inner(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_secrets(value)
    return [_inner(each) for each in value] if isinstance(value, list) else value


def _job_name(run_dir: Path) -> str:
    """Return the name of the sweep and the number of the job. A later attempt at the job has another name."""
    num_before = sum(1 for _ in run_dir.parent.glob(f"{run_dir.name}.attempt*"))
    attempt = f"-attempt{num_before + 1}" if num_before else ""
    return f"{run_dir.parent.name}-{run_dir.name}{attempt}"


def _config_of(run_dir: Path) -> dict[str, Any]:
    try:
        return read_config(run_dir)
    except CheckpointError:
        return {}


def _changes_of(run_dir: Path) -> dict[str, Any]:
    try:
        changes = read_summary(run_dir).get("changes")
    except CheckpointError:
        return {}
    items = changes.items() if isinstance(changes, dict) else ()
    return {path: pair[1] for path, pair in items if isinstance(pair, list) and len(pair) == 2}


def _read_group(run_dir: Path) -> tuple[str, dict[str, Any]]:
    """Return the label of a job's group, and the values of its factors."""
    try:
        index = read_mapping(run_dir.parent / SWEEP_FILE)
        job = next(job for job in index["jobs"] if job["directory"] == run_dir.name)
        group = next(group for group in index["groups"] if group["number"] == job["group"])
        label, values = group["label"], group["values"]
    except (CheckpointError, LookupError, TypeError, StopIteration):
        return "", {}
    is_valid = isinstance(label, str) and isinstance(values, dict)
    return (on_one_line(label, _MAX_LABEL), values) if is_valid else ("", {})
