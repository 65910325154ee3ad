"""`RunRecord`: what a run writes about itself into its directory."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from loopwright.errors import SettingError
from loopwright.experiment.settings import RunSettings
from loopwright.loggers.run_files import number

State = str  # "running", "completed", "interrupted" or "failed"


class RunRecord:
    """The files of one run directory that tell what was run and how it ended.

    ``summary.json`` is there from the start, and replaced as a whole, so that it can be read at any time.

    Args:
        directory: the run directory; exists.
        settings: of the run; the summary names its objective.

    Raises:
        SettingError: if the directory holds a run already.
    """

    def __init__(self, directory: Path, settings: RunSettings) -> None:
        if (directory / "summary.json").exists():
            raise SettingError("run directory", f"={str(directory)!r}: holds a run already.")
        self.directory = directory
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
            "data": {},
            "optimizer": None,
        }
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
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120)
        self._write("config.yaml", text)
        self._write("command.txt", shlex.join(words) + "\n")
        self._write("environment.json", json.dumps(environment, indent=2) + "\n")
        if diff is not None:
            self._write("git.diff", diff)

    def write_plan(self, text: str, data: Mapping[str, Any]) -> None:
        """Write ``plan.txt`` and ``plan.json``."""
        self._write("plan.txt", text.rstrip("\n") + "\n")
        self._write("plan.json", json.dumps(data, indent=2) + "\n")

    def write_data(self, facts: Mapping[str, Any]) -> None:
        """Put what is known of the data into the summary."""
        self._summary["data"] = dict(facts)
        self._write_summary()

    def write_optimizer(self, facts: Mapping[str, Any]) -> None:
        """Put the optimizer that was used into the summary."""
        self._summary["optimizer"] = dict(facts)
        self._write_summary()

    def end(self, state: State, exit_code: int, **values: Any) -> None:
        """Write how the run ended; ``values`` are entries of the summary, as far as they are known."""
        unknown = values.keys() - self._summary.keys()
        assert not unknown, unknown
        self._summary |= {"state": state, "exit_code": exit_code, "seconds": time.monotonic() - self._started, **values}
        self._write_summary()

    def _write_summary(self) -> None:
        text = json.dumps(plain(self._summary), indent=2, allow_nan=False) + "\n"
        partial = self.directory / f".summary-{os.getpid()}.json"
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.directory / "summary.json")

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, encoding="utf-8")


def write_sweep(directory: Path, jobs: Sequence[Mapping[str, Any]]) -> None:
    """Write ``sweep.json``: for each job its state, overrides, objective and error, in order."""
    text = json.dumps(plain({"jobs": list(jobs)}), indent=2, allow_nan=False) + "\n"
    (directory / "sweep.json").write_text(text, encoding="utf-8")


def plain(value: Any) -> Any:
    """``value`` in strict JSON: numbers that are not finite become texts, as in metrics.jsonl."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def read_summary(directory: Path) -> dict[str, Any] | None:
    """The summary of a run, or None where it has left none."""
    try:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None
