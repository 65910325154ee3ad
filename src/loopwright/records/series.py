"""`Series`, the values of one metric, and functions that read files of a run, such as ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, on_one_line
from loopwright.regular_files import read_regular

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"
SUMMARY_FILE = "summary.json"
COMPLETE = ("completed", "stopped")  # values of ``state`` in the ``summary.json`` of a finished run
MAX_LOG_BYTES = 4 << 30  # maximum size of a file that grows during a run, such as metrics.jsonl
_MAX_RECORD_BYTES = 16 << 20  # maximum size of other files of a run, such as summary.json
_MAX_DEPTH = 50  # maximum levels of nested lists and mappings


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one metric.

    Attributes:
        name: name of the metric, such as ``val/loss``.
        steps: ``global_step`` of each value, in ascending order.
        values: values of the metric, including NaN and infinite values.
    """

    name: str
    steps: Sequence[int]
    values: Sequence[float]

    @property
    def finite(self) -> list[tuple[int, float]]:
        """Pairs ``(step, value)`` of the finite values, in ascending order of their steps."""
        return [pair for pair in zip(self.steps, self.values, strict=True) if math.isfinite(pair[1])]

    def best(self, mode: str) -> tuple[int, float] | None:
        """Return the pair ``(step, value)`` of the best finite value, or None if no value is finite.

        If several values are equally good, the pair with the smallest step is returned.

        Args:
            mode: "min" or "max".
        """
        sign = -1.0 if mode == "max" else 1.0
        return min(self.finite, key=lambda pair: sign * pair[1], default=None)


def read_series(run_dir: Path, file: str = METRICS_FILE) -> dict[str, Series]:
    """Return the metrics of a run by name, in the order in which the names first appear.

    If a metric has several values at one step, the last value is used. Lines that cannot be parsed are skipped. For
    example, the last line can be incomplete after a power failure. The result is empty if the run has logged no
    metrics.

    Args:
        run_dir: run directory.
        file: name of the file, such as ``timing.jsonl``.

    Raises:
        CheckpointError: if the file cannot be read, is a link, is not a regular file, consists of holes, or has more
            than 4 GiB.
    """
    found: dict[str, dict[int, float]] = {}
    data = read_record(run_dir / file, MAX_LOG_BYTES)
    if data is None:
        return {}
    for line in data.decode(errors="replace").splitlines():
        entry = parse_entry(line)
        if entry is not None:
            name, step, value = entry
            found.setdefault(name, {})[step] = value
    return {name: Series(name, sorted(points), [points[s] for s in sorted(points)]) for name, points in found.items()}


def read_metrics(run_dir: str | Path) -> Any:
    """Return the metrics of a run as a table with one row per step and one column per metric.

    If a metric was not logged at a step, the table contains NaN for this step.

    Args:
        run_dir: run directory with a ``metrics.jsonl``.

    Returns:
        If pandas is installed, a `pandas.DataFrame` with the steps as index. Otherwise, a list with one mapping for
        each step. A mapping contains ``step`` and the metrics that were logged at this step.

    Raises:
        CheckpointError: if `read_series` cannot read the file, and if the run has logged no metrics.
    """
    found = read_series(Path(run_dir))
    if not found:
        raise CheckpointError(f"{run_dir}: has no metrics; expected a run directory with {METRICS_FILE}.")
    rows: dict[int, dict[str, float]] = {}
    for name, series in found.items():
        for step, value in zip(series.steps, series.values, strict=True):
            rows.setdefault(step, {})[name] = value
    if find_spec("pandas") is None:
        return [{"step": step, **rows[step]} for step in sorted(rows)]
    pandas: Any = import_module("pandas")  # an optional package
    table = pandas.DataFrame([rows[step] for step in sorted(rows)], index=sorted(rows), columns=list(found))
    return table.rename_axis("step")


def read_summary(run_dir: Path) -> dict[str, Any]:
    """Read the ``summary.json`` of a run with `read_mapping`."""
    return read_mapping(run_dir / SUMMARY_FILE)


def read_record(file: Path, max_bytes: int = _MAX_RECORD_BYTES) -> bytes | None:
    """Return the content of a file that a run recorded, or None if there is no such file.

    Raises:
        CheckpointError: if the file cannot be read, is a link, is not a regular file, consists of holes, or has more
            than ``max_bytes`` bytes.
    """
    try:
        return read_regular(file, max_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problem = f"cannot be read: {error.strerror}; expected the file that a run recorded, or no file."
        raise CheckpointError(f"{on_one_line(str(file))}: {problem}") from None


def read_mapping(file: Path) -> dict[str, Any]:
    """Read the mapping in a JSON file.

    The result is empty if the file is missing or contains no mapping. The result is also empty if the mapping has more
    than 50 levels of nesting, because no run writes such a file.

    Raises:
        CheckpointError: if the file cannot be read, is a link, is not a regular file, consists of holes, or has more
            than 16 MiB.
    """
    data = read_record(file)
    try:
        found = None if data is None else json.loads(data.decode())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and not _is_deeper(found, _MAX_DEPTH) else {}


def _is_deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(each, depth - 1) for each in inner)


def parse_entry(line: str) -> tuple[str, int, float] | None:
    """Return the name, the step and the value in a line of ``metrics.jsonl``; None for another line."""
    try:
        entry = json.loads(line)
        return str(entry["name"]), int(entry["step"]), float(entry["value"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
