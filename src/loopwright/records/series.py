"""The metrics of a run, read back from its ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
_MAX_DEPTH = 50  # of containers in each other


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one metric.

    Attributes:
        name: such as ``val/loss``.
        steps: the ``global_step`` of each value, rising.
        values: what is not finite included.
    """

    name: str
    steps: Sequence[int]
    values: Sequence[float]

    @property
    def finite(self) -> list[tuple[int, float]]:
        """(step, value) of the values that are finite."""
        return [pair for pair in zip(self.steps, self.values, strict=True) if math.isfinite(pair[1])]

    def best(self, mode: str) -> tuple[int, float] | None:
        """(step, value) of the first best value; ``mode`` is "min" or "max"."""
        sign = -1.0 if mode == "max" else 1.0
        return min(self.finite, key=lambda pair: sign * pair[1], default=None)


def read_series(run_dir: Path) -> dict[str, Series]:
    """The metrics of a run by name, in the order in which they first appear.

    Of several values at one step the last counts. Lines that are no metrics, such as half a line that a machine left
    when it lost power, are passed over. A run that has logged nothing has no series.
    """
    found: dict[str, dict[int, float]] = {}
    try:
        text = (run_dir / METRICS_FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    for line in text.splitlines():
        entry = _entry(line)
        if entry is not None:
            name, step, value = entry
            found.setdefault(name, {})[step] = value
    return {name: Series(name, sorted(points), [points[s] for s in sorted(points)]) for name, points in found.items()}


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The ``summary.json`` of a run; empty where there is none that can be read."""
    return read_mapping(run_dir / SUMMARY_FILE)


def read_mapping(file: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty where there is none that can be read, or one nested deeper than runs write."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and not _is_deeper(found, _MAX_DEPTH) else {}


def _is_deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(each, depth - 1) for each in inner)


def _entry(line: str) -> tuple[str, int, float] | None:
    try:
        entry = json.loads(line)
        return str(entry["name"]), int(entry["step"]), float(entry["value"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
