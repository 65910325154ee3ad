"""`Keys`, which finds the value of a key in each run: a column, a metric, a chosen option, or a setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loopwright.errors import CheckpointError, SettingError, did_you_mean, on_one_line, printable
from loopwright.experiment.reading.entry import Entry
from loopwright.records import config_leaves, read_config

Value = Any  # str, int, float, bool, None, datetime, or a list

# The fields of each run in JSON, CSV and Markdown, in this order.
FIELDS: Mapping[str, Callable[[Entry], Value]] = MappingProxyType(
    {
        "id": lambda entry: entry.id,
        "kind": lambda entry: entry.kind,
        "name": lambda entry: entry.name,
        "directory": lambda entry: str(entry.directory),
        "state": lambda entry: entry.state,
        "num_jobs": lambda entry: entry.num_jobs,
        "num_done": lambda entry: entry.num_done,
        "started": lambda entry: entry.started,
        "ended": lambda entry: entry.ended,
        "seconds": lambda entry: entry.seconds,
        "global_step": lambda entry: entry.global_step,
        "num_steps": lambda entry: entry.num_steps,
        "objective_name": lambda entry: entry.objective_name,
        "objective": lambda entry: entry.objective,
        "best": lambda entry: entry.best,
        "best_step": lambda entry: entry.best_step,
        "changes": lambda entry: {path: list(pair) for path, pair in entry.changes.items()},
        "from": lambda entry: entry.origin,
        "resumes": lambda entry: entry.resumes,
        "error": lambda entry: entry.error,
        "command": lambda entry: entry.command,
    }
)
# Short names of the columns in the terminal.
_ALIASES: Mapping[str, str] = MappingProxyType({"when": "started", "steps": "global_step"})
OPTIONS = ("sort", "limit", "columns", "sweeps", "format")  # options of ``loopwright runs``, which are no keys
_NOT_COMPARED = ("changes",)
KEYS = (*(name for name in FIELDS if name not in _NOT_COMPARED), *_ALIASES)
_MISSING = object()
_MAX_PATHS = 4  # maximum number of settings that a message names


class Keys:
    """Finds values by their keys. ``config.yaml`` is read only if a key is neither a column nor a metric.

    Args:
        entries: runs in which a key must exist, including the jobs of sweeps.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._configs: dict[Path, Mapping[str, Any]] = {}

    def find(self, key: str) -> Callable[[Entry], Value]:
        """Return a function that returns the value of ``key`` in a run; None if the run has no such value.

        Raises:
            SettingError: if no run has a value with this key. The message names the nearest keys.
        """
        name = _ALIASES.get(key, key)
        if name in KEYS:
            return FIELDS[name]
        if not self._entries:
            return lambda _: None
        if any(self._is_metric(key, entry) for entry in self._entries):
            return lambda entry: entry.objective if key == entry.objective_name else entry.metrics.get(key)
        if any(key in entry.chosen for entry in self._entries):
            return lambda entry: entry.chosen.get(key)
        values = [self._setting(key, entry) for entry in self._entries]
        if any(value is not _MISSING and not isinstance(value, Mapping) for value in values):
            return lambda entry: _known(self._setting(key, entry))
        if any(key in entry.changes for entry in self._entries):  # an option of a group, such as optimizer
            return lambda entry: entry.changes[key][1] if key in entry.changes else None
        section = next((value for value in values if isinstance(value, Mapping) and value), None)
        if section is not None:
            paths = [f"{key}.{path}" for path, _ in config_leaves(section)]
            shown = on_one_line(", ".join(paths[:_MAX_PATHS]), 200)
            raise SettingError(key, f": is a section; expected one of its settings, such as {shown}.")
        raise SettingError(key, f": {self._problem(key)}")

    @staticmethod
    def _is_metric(key: str, entry: Entry) -> bool:
        return key in entry.metrics or (key == entry.objective_name and entry.objective is not None)

    def _setting(self, key: str, entry: Entry) -> Any:
        found: Any = self._config(entry)
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return _MISSING
            found = found[part]
        return found

    def _config(self, entry: Entry) -> Mapping[str, Any]:
        """Return the configuration of a run. It is empty for a sweep, and if the file cannot be read."""
        if entry.directory not in self._configs:
            try:
                config = {} if entry.kind == "sweep" else read_config(entry.directory)
            except CheckpointError:
                config = {}
            self._configs[entry.directory] = config
        return self._configs[entry.directory]

    def _problem(self, key: str) -> str:
        names = dict.fromkeys(KEYS)
        for entry in self._entries:
            names |= dict.fromkeys((entry.objective_name, *entry.metrics, *entry.chosen))
            names |= dict.fromkeys(path for path, _ in config_leaves(self._config(entry)))
        expected = "expected a column, a metric, or the path of a setting such as optimizer.lr"
        hint = did_you_mean(key, (*names, *OPTIONS)) or f" Columns: {', '.join(KEYS)}."
        return f"no run has a value with this name; {expected}.{printable(hint, keeps_newlines=False)}"


def _known(value: Any) -> Value:
    return None if value is _MISSING or isinstance(value, Mapping) else value
