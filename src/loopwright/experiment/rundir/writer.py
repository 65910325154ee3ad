"""`DirectoryWriter`: what a run writes about itself into its directory."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from loopwright.errors import SaveError, SettingError
from loopwright.experiment.jobs.settings import JobSettings
from loopwright.loggers.append_only import number
from loopwright.records import read_summary

# Of the summary of a run that is resumed, until it comes to something else.
_KEPT = (
    "global_step",
    "metrics",
    "best",
    "objective",
    "weights_sha256",
    "config_sha256",
    "data",
    "origins",
    "optimizer",
)

_PARTIAL = re.compile(r"\.[a-z]+\.(json|yaml|txt|diff)-\d+")
_log = logging.getLogger("loopwright")

State = str  # "running", "completed", "interrupted" or "failed"


class DirectoryWriter:
    """The files of one run directory that tell what was run and how it ended.

    ``summary.json`` is there from the start, and replaced as a whole, so that it can be read at any time. A run that is
    resumed leaves the files as they are until it really goes on, see `go_on`.

    Args:
        directory: the run directory; exists.
        settings: of the run; the summary names its objective.
        is_resumed: whether the directory holds the beginning of this run.

    Raises:
        SettingError: if the directory holds a run already that is not to be resumed.
    """

    def __init__(self, directory: Path, settings: JobSettings, *, is_resumed: bool = False) -> None:
        if (directory / "summary.json").exists() and not is_resumed:
            raise SettingError("run directory", f"={str(directory)!r}: holds a run already.")
        self.directory = directory
        self.is_resumed = is_resumed
        self._is_begun = not is_resumed
        before = read_summary(directory) if is_resumed else {}
        if is_resumed and not before:
            _log.warning("%s: not to be read; what it said of the data is not compared.", directory / "summary.json")
        self._data_before = before["data"] if isinstance(before.get("data"), dict) else {}
        self._resumption: tuple[str, str] | None = None  # the configuration and the command, not yet written
        self._seconds_before = before["seconds"] if isinstance(before.get("seconds"), float) else 0.0
        self._started = time.monotonic()
        self._summary: dict[str, Any] = {
            "state": "running",
            "error": None,
            "exit_code": None,
            "global_step": 0,
            "metrics": {},
            "best": None,
            "rows": None,
            "objective": None,
            "objective_name": settings.objective,
            "objective_mode": settings.objective_mode,
            "seconds": 0.0,
            "weights_sha256": None,
            "config_sha256": None,
            "data": {},
            "origins": {},
            "optimizer": None,
            "resumes": before["resumes"] if isinstance(before.get("resumes"), list) else [],
        }
        if is_resumed:
            self._summary |= {name: before[name] for name in _KEPT if name in before}
        else:
            self._write_summary()

    def write_beginning(
        self, config: Mapping[str, Any], words: Sequence[str], environment: Mapping[str, Any], diff: str | None
    ) -> None:
        """Write what is known before anything is built: ``config.yaml``, ``command.txt`` and the environment.

        Args:
            config: the resolved configuration.
            words: the command line.
            environment: of `loopwright.experiment.rundir.environment`.
            diff: uncommitted changes; None: not known.
        """
        self._write_config(_config_text(config))
        self._write("command.txt", shlex.join(words) + "\n")
        self._write("environment.json", json.dumps(environment, indent=2) + "\n")
        if diff is not None:
            self._write("git.diff", diff)

    def note_resumption(
        self, config: Mapping[str, Any], words: Sequence[str], checkpoint: Path, differences: Sequence[str]
    ) -> None:
        """Note that the run is to go on.

        Args:
            config: the resolved configuration, which may have a later end than before.
            words: the command line.
            checkpoint: from which it goes on.
            differences: between the environment in which it began and this one.
        """
        self._resumption = _config_text(config), shlex.join(words) + "\n"
        self._summary["resumes"].append({"checkpoint": checkpoint.name, "differences": list(differences)})

    def go_on(self) -> None:
        """Nothing refused to go on: write what was noted of a resumption, if there is one."""
        if self._resumption is None:
            return
        config_text, command = self._resumption
        self._resumption, self._is_begun = None, True
        for left in self.directory.glob(".*.*-*"):  # by a process that was killed while it wrote
            if _PARTIAL.fullmatch(left.name):
                left.unlink(missing_ok=True)
        self._write_config(config_text)
        file = self.directory / "command.txt"
        self._write("command.txt", (file.read_text(encoding="utf-8") if file.exists() else "") + command)
        self._write_summary()

    def _write_config(self, text: str) -> None:
        self._write("config.yaml", text)
        self._summary["config_sha256"] = hashlib.sha256(text.encode()).hexdigest()

    def write_plan(self, text: str, data: Mapping[str, Any]) -> None:
        """Write ``plan.txt`` and ``plan.json``."""
        self._write("plan.txt", text.rstrip("\n") + "\n")
        self._write("plan.json", json.dumps(data, indent=2) + "\n")

    def write_data(self, facts: Mapping[str, Any]) -> None:
        """Put what is known of the data into the summary.

        Raises:
            SettingError: if a run that is resumed began with other data.
        """
        found = json.loads(json.dumps(plain(facts)))
        changed = [name for name, value in self._data_before.items() if found.get(name) != value]
        if changed:
            raise SettingError("data", f": not what the run began with ({', '.join(changed)}); expected the same data.")
        self._summary["data"] = dict(facts)
        self._write_summary()

    def write_origins(self, digests: Mapping[str, str | None]) -> None:
        """Put the checkpoints that the run begins from or validates into the summary, each with its digest."""
        self._summary["origins"] = dict(digests)
        self._write_summary()

    def write_optimizer(self, facts: Mapping[str, Any]) -> None:
        """Put the optimizer that was used into the summary."""
        self._summary["optimizer"] = dict(facts)
        self._write_summary()

    def end(self, state: State, exit_code: int, **values: Any) -> None:
        """Write how the run ended; ``values`` are entries of the summary, as far as they are known.

        A run that was to be resumed and did not go on is as it was.
        """
        unknown = values.keys() - self._summary.keys()
        assert not unknown, unknown
        seconds = self._seconds_before + time.monotonic() - self._started
        self._summary |= {"state": state, "exit_code": exit_code, "seconds": seconds, **values}
        self._write_summary()

    def _write_summary(self) -> None:
        if not self._is_begun:
            return
        self._write("summary.json", json.dumps(plain(self._summary), indent=2, allow_nan=False) + "\n")

    def _write(self, name: str, text: str) -> None:
        """Put a file in place of the one of that name, or leave that as it is."""
        path, partial = self.directory / name, self.directory / f".{name}-{os.getpid()}"
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise SaveError(f"{path}: cannot be written: {error.strerror or error}") from error


def _config_text(config: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120)
    return text


def plain(value: Any) -> Any:
    """``value`` in strict JSON: numbers that are not finite become texts, as in metrics.jsonl."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
