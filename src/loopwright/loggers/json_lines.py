"""`JSONLinesLogger`: the metrics of a run as files that any tool can read, a line each."""

from __future__ import annotations

import json
from collections.abc import Mapping

from loopwright.loggers.append_only import FileLogger, number

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"


class JSONLinesLogger(FileLogger):
    """Appends each value to a file in the run directory as ``{"step": 100, "name": "val/loss", "value": 0.41}``.

    ``metrics.jsonl`` holds what the same run would give again; clocks and rates go to ``timing.jsonl``. Every line
    is strict JSON: what is not finite is a string, ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``, and so
    ``float(value)`` reads every line. The system has the lines when a call returns; a machine that loses power can
    leave half a last line.

    Raises:
        SettingError: when the trainer is built without a ``run_dir``.
    """

    file_names = (METRICS_FILE, TIMING_FILE)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Append to ``metrics.jsonl``."""
        self.files.append(METRICS_FILE, (_line(step, name, value) for name, value in metrics.items()))

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Append to ``timing.jsonl``."""
        self.files.append(TIMING_FILE, (_line(step, name, value) for name, value in timing.items()))


def _line(step: int, name: str, value: float) -> str:
    return json.dumps({"step": step, "name": name, "value": number(float(value))}, allow_nan=False) + "\n"
