"""`JSONLinesLogger`: writes the metrics and timings of a run as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping

from loopwright.loggers.append_only import FileLogger, number

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"


class JSONLinesLogger(FileLogger):
    """Appends each value to a file in the run directory as ``{"step": 100, "name": "val/loss", "value": 0.41}``.

    Metrics are written to ``metrics.jsonl``. Durations and rates are written to ``timing.jsonl``, so that a repeated
    run writes an equal ``metrics.jsonl``. Every line is strict JSON. NaN and infinite values are written as the strings
    ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``. Python's ``float(value)`` converts these strings to numbers.

    When a log method returns, its lines have been passed to the operating system. After a power loss, the last line of
    a file may be incomplete.

    Raises:
        SettingError: if the trainer is built without a ``run_dir``.
    """

    file_names = (METRICS_FILE, TIMING_FILE)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Append a line for each metric to ``metrics.jsonl``."""
        self.files.append(METRICS_FILE, (_line(step, name, value) for name, value in metrics.items()))

    def log_timing(self, timing: Mapping[str, float], step: int) -> None:
        """Append a line for each duration or rate to ``timing.jsonl``."""
        self.files.append(TIMING_FILE, (_line(step, name, value) for name, value in timing.items()))


def _line(step: int, name: str, value: float) -> str:
    return json.dumps({"step": step, "name": name, "value": number(float(value))}, allow_nan=False) + "\n"
