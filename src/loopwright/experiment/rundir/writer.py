"""`DirectoryWriter`: writes the configuration, environment, plan and result of a run to files in the run directory."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from loopwright.errors import CheckpointError, SaveError, SettingError
from loopwright.experiment.console.command_line import shell_line
from loopwright.experiment.jobs.changes import Changes
from loopwright.experiment.jobs.job_settings import JobSettings
from loopwright.loggers.append_only import plain
from loopwright.records import COMPLETE, DATA_FILE, encoding_text, read_mapping, read_record, read_summary
from loopwright.records.origins import Origin, as_record
from loopwright.regular_files import replace_file

# Entries of the recorded summary that a resumed run keeps until new values are known.
_KEPT = (
    "started",
    "cwd",
    "command",
    "chosen",
    "changes",
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

State = str  # "running", "completed", "stopped", "interrupted" or "failed"


class DirectoryWriter:
    """Writes the files of a run directory that describe the run and its result.

    ``summary.json`` exists from the start. Every change replaces the whole file, so that other processes never read an
    incomplete file. A resumed run changes no file before `write_resumption` is called.

    Args:
        directory: existing run directory.
        settings: settings of the run, including the name and the mode of the objective.
        is_resumed: whether this process resumes the run that the directory contains.
        mask: function that masks the values of environment variables in the text of a file.

    Raises:
        SettingError: if the directory already contains a run and ``is_resumed`` is False.
    """

    def __init__(
        self,
        directory: Path,
        settings: JobSettings,
        *,
        is_resumed: bool = False,
        mask: Callable[[str], str] = str,
    ) -> None:
        if (directory / "summary.json").exists() and not is_resumed:
            raise SettingError("run directory", f"={str(directory)!r}: contains a run already.")
        self.directory = directory
        self.is_resumed = is_resumed
        self._mask = mask
        self._is_begun = not is_resumed
        self.was_complete = False  # whether the resumed run was completed or stopped
        before = read_summary(directory) if is_resumed else {}
        self.was_complete = before.get("state") in COMPLETE
        if is_resumed and not before:
            _log.warning(
                "%s: cannot be read; the data are not compared with the recorded data.", directory / "summary.json"
            )
        self._resumption: tuple[str, str] | None = None  # texts of config.yaml and command.txt, not yet written
        self._encoding_text: str | None = None  # text of data.json
        self._seconds_before = before["seconds"] if isinstance(before.get("seconds"), float) else 0.0
        self._started_seconds = time.monotonic()
        self._summary: dict[str, Any] = {
            "state": "running",
            "stop": None,
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
            # `_KEPT` restores the recorded time of a resumed run. Earlier versions did not record this time.
            "started": None if is_resumed else _now(),
            "ended": None,
            "cwd": os.getcwd(),  # relative paths in the configuration are relative to this directory
            "command": None,
            "chosen": None,
            "changes": {},
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
        self,
        config: Mapping[str, Any],
        words: Sequence[str],
        chosen: Mapping[str, str | None],
        changes: Changes,
        environment: Mapping[str, Any],
        diff: str | None,
    ) -> None:
        """Write the configuration, the command, the environment and the uncommitted changes of a new run.

        Args:
            config: resolved configuration, written to ``config.yaml``.
            words: words of the command line, written to ``command.txt`` and the summary.
            chosen: name of the chosen option for each configuration group, written to the summary.
            changes: settings that differ from the configuration of the experiment, written to the summary.
            environment: return value of `loopwright.experiment.rundir.environment.environment`, written to
                ``environment.json``.
            diff: uncommitted changes, written to ``git.diff``. With None, this file is not written.
        """
        self._write_config(config_text(config))
        self._write("command.txt", shlex.join(words) + "\n")
        self._summary |= {"command": shell_line(words), "chosen": dict(chosen), "changes": dict(changes)}
        self._write_summary()
        self._write("environment.json", json.dumps(environment, indent=2) + "\n")
        if diff is not None:
            self._write("git.diff", diff)

    def note_resumption(
        self,
        config: Mapping[str, Any],
        words: Sequence[str],
        changes: Changes,
        checkpoint: Path,
        differences: Sequence[str],
    ) -> None:
        """Keep the new configuration and command of a resumed run in memory until `write_resumption` writes the files.

        Args:
            config: resolved configuration with the overrides of the resume.
            words: words of the command line that resumes the run.
            changes: settings that differ from the configuration of the experiment.
            checkpoint: checkpoint from which the run resumes.
            differences: differences between the recorded environment and the current environment.

        Raises:
            CheckpointError: if ``command.txt`` cannot be read, or is too large.
        """
        before = (read_record(self.directory / "command.txt") or b"").decode(errors="replace")
        self._resumption = config_text(config), before + shlex.join(words) + "\n"
        self._summary["changes"] = dict(changes)
        self._summary["resumes"].append({"checkpoint": checkpoint.name, "differences": list(differences)})

    def write_resumption(self, global_step: int, stop_step: int) -> None:
        """Write the files of a resumed run. The caller has finished all checks of the resume.

        Args:
            global_step: step from which the run resumes.
            stop_step: ``global_step`` at which the run ends. If the recorded plan ends earlier, the summary records
                both last steps. A schedule that depends on the last step had different learning rates until
                ``global_step``.
        """
        if self._resumption is None:
            return
        before = _recorded_stop(self.directory)
        if before is not None and before < stop_step:
            extended = {"global_step": global_step, "stop_step": before, "new_stop_step": stop_step}
            self._summary["resumes"][-1]["extended"] = extended
        text, command = self._resumption
        self._resumption, self._is_begun = None, True
        for left in self.directory.glob(".*.*-*"):  # incomplete files of a process that was killed
            if _PARTIAL.fullmatch(left.name):
                with suppress(OSError):  # for example, a folder with a matching name
                    left.unlink()
        self._write_config(text)
        self._write("command.txt", command)
        self._write_encoding()
        self._write_summary()

    def _write_config(self, text: str) -> None:
        text = self._mask(text)
        self._write("config.yaml", text)
        self._summary["config_sha256"] = hashlib.sha256(text.encode()).hexdigest()

    def write_plan(self, text: str, data: Mapping[str, Any]) -> None:
        """Write ``plan.txt`` and ``plan.json``."""
        self._write("plan.txt", text.rstrip("\n") + "\n")
        self._write("plan.json", json.dumps(data, indent=2) + "\n")

    def write_data(self, facts: Mapping[str, Any], encoding: Mapping[str, Any] | None) -> None:
        """Write facts about the data, such as digests, to the summary. Write the encoding of the data to ``data.json``.

        Args:
            facts: return value of `loopwright.experiment.jobs.objects.facts_of`.
            encoding: ``Splits.encoding``. With None, ``data.json`` is not written. A resumed run does not replace an
                existing ``data.json``.
        """
        self._summary["data"] = dict(facts)
        self._encoding_text = None if encoding is None else encoding_text(encoding)
        self._write_encoding()
        self._write_summary()

    def _write_encoding(self) -> None:
        is_kept = self.is_resumed and os.path.lexists(self.directory / DATA_FILE)
        if self._encoding_text is not None and self._is_begun and not is_kept:
            self._write(DATA_FILE, self._encoding_text)

    def write_origins(self, origins: Iterable[Origin]) -> None:
        """Record in the summary from which checkpoints the run starts, or which checkpoints it validates."""
        self._summary["origins"] = {origin.path: as_record(origin) for origin in origins}
        self._write_summary()

    def write_optimizer(self, facts: Mapping[str, Any]) -> None:
        """Write the class name and the parameter groups of the optimizer to the summary."""
        self._summary["optimizer"] = dict(facts)
        self._write_summary()

    def end(self, state: State, exit_code: int, **values: Any) -> None:
        """Write the result of the run to the summary.

        If a resumed run ends before `write_resumption` is called, no file changes.

        Args:
            state: final state of the run.
            exit_code: exit code of the run.
            values: other entries of the summary, by name.
        """
        unknown = values.keys() - self._summary.keys()
        assert not unknown, unknown
        seconds = self._seconds_before + time.monotonic() - self._started_seconds
        self._summary |= {"state": state, "exit_code": exit_code, "seconds": seconds, "ended": _now(), **values}
        self._write_summary()

    def _write_summary(self) -> None:
        if not self._is_begun:
            return
        self._write("summary.json", json.dumps(plain(self._summary), indent=2, allow_nan=False) + "\n")

    def _write(self, name: str, text: str) -> None:
        """Replace a file with masked text. If the new file cannot be written, the old file is unchanged.

        Raises:
            SaveError: if the new file cannot be written.
        """
        path = self.directory / name
        try:
            replace_file(path, self._mask(text).encode())
        except OSError as error:
            raise SaveError(f"{path}: cannot be written: {error.strerror or error}") from error


def _recorded_stop(directory: Path) -> int | None:
    """Return the last step of the recorded plan; None if ``plan.json`` contains no last step."""
    try:
        settings = read_mapping(directory / "plan.json").get("settings")
    except CheckpointError:  # for example, ``plan.json`` is a link, which `write_plan` replaces
        return None
    stop = settings.get("stop_step") if isinstance(settings, dict) else None
    return stop if type(stop) is int else None


def _now() -> str:
    """Return the current time in the format of ISO 8601 with the offset from UTC: ``2026-11-30T18:45:00.250+01:00``."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def config_text(config: Mapping[str, Any]) -> str:
    """Return the text of ``config.yaml``."""
    text: str = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120)
    return text
