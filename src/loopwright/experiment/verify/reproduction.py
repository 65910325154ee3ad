"""`compare`: compares the metrics of two runs line by line, and the digests of their final weights.

Lines of metrics are equal only if their bytes are equal. Values are parsed only to describe differences.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopwright.errors import on_one_line
from loopwright.records import COMPLETE, MAX_LOG_BYTES, METRICS_FILE, read_record, read_summary

_MAX_CHARACTERS = 100  # maximum length of a recorded string in a message

# Step (such as "step 7") or checkpoint, name of the metric, and index (from 0) among equal steps and names.
_Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The recorded results of one run.

    Args:
        state: state of the run in ``summary.json``.
        global_step: ``global_step`` in ``summary.json``.
        lines: lines of ``metrics.jsonl``; empty if no metrics were recorded.
        weights_sha256: digest of the final weights of a completed run; None if no digest was recorded.
    """

    state: str
    global_step: object
    lines: Sequence[bytes]
    weights_sha256: object

    @property
    def is_complete(self) -> bool:
        """Whether the run completed, or a callback stopped it."""
        return self.state in COMPLETE

    @property
    def ending(self) -> str:
        """Description of the end of an incomplete run, such as ``was interrupted at global_step 7``."""
        if self.state in ("interrupted", "failed"):
            how = "failed" if self.state == "failed" else "was interrupted"
            return f"{how} at global_step {on_one_line(str(self.global_step), _MAX_CHARACTERS)}"
        return "has not ended" if self.state == "running" else "has no summary"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison of two runs.

    Args:
        is_reproduced: whether the results are equal; None if there are too few results to compare.
        text: message to the user.
    """

    is_reproduced: bool | None
    text: str


def read_outcome(run_dir: Path, *, is_training: bool) -> Outcome:
    """Read the results of a run.

    If the run did not complete, a last line of ``metrics.jsonl`` without a line end is ignored. If a validation run
    wrote no ``metrics.jsonl``, the metrics are read from ``summary.json``.

    Raises:
        CheckpointError: if a file of the run exists but cannot be read, or is too large.
    """
    summary = read_summary(run_dir)
    state = str(summary.get("state"))
    data = read_record(run_dir / METRICS_FILE, MAX_LOG_BYTES)
    if data is not None:
        lines = data.splitlines(keepends=True)
    else:
        lines = [] if is_training else _validated(summary)
    if state not in COMPLETE and lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    return Outcome(
        state=state,
        global_step=summary.get("global_step"),
        lines=lines,
        weights_sha256=summary.get("weights_sha256"),
    )


def compare(there: Outcome, here: Outcome) -> Comparison:
    """Compare the results of a recorded run with the results of a new run.

    If one of the two runs did not complete, the metrics up to the end of this run are compared, and the weights are not
    compared.

    Args:
        there: results of the recorded run.
        here: results of the new run.
    """
    are_complete = there.is_complete and here.is_complete
    theirs = there.lines if here.is_complete else there.lines[: len(here.lines)]
    ours = here.lines if there.is_complete else here.lines[: len(there.lines)]
    has_weights = are_complete and there.weights_sha256 is not None
    are_weights_equal = has_weights and there.weights_sha256 == here.weights_sha256
    same = _amount(theirs)
    if not there.lines and not (there.is_complete and there.weights_sha256 is not None):
        return Comparison(None, _nothing_recorded(there))
    if there.lines and theirs != ours:
        tail = f"; the weights {'are equal' if are_weights_equal else 'differ'}" if has_weights else ""
        return Comparison(False, f"Not reproduced: {_describe_differences(theirs, ours)}{tail}.")
    if has_weights and not are_weights_equal:
        return Comparison(
            False, f"Not reproduced: {f'{same} are bitwise equal, ' if theirs else ''}the weights differ."
        )
    if len(theirs) < len(there.lines) or (there.is_complete and not here.is_complete):
        far = f" {same} are bitwise equal." if theirs else ""
        return Comparison(None, f"No verdict: the new run {here.ending}.{far}")
    if here.lines and not there.lines:
        gone = f"the recorded run has no metrics, and the new run has {_amount(here.lines)}"
        return Comparison(None, f"No verdict: {gone}; the weights are bitwise equal.")
    if not has_weights:
        why = "no digest of the weights was recorded"
        if not there.is_complete:
            why = f"the recorded run {there.ending}, and has no final weights"
        return Comparison(True, f"Reproduced: {same} are bitwise equal; {why}.")
    if not theirs:
        return Comparison(True, "Reproduced: the weights are bitwise equal; no metrics were recorded.")
    return Comparison(True, f"Reproduced: {same} and the weights are bitwise equal.")


def _nothing_recorded(there: Outcome) -> str:
    what = "neither metrics nor weights were recorded"
    if not there.is_complete:
        what = f"the recorded run {there.ending}, and no metrics were recorded"
    return f"No verdict: {what}; there is nothing to compare."


def _validated(summary: Mapping[str, Any]) -> list[bytes]:
    """Return the metrics in the summary of a validation run, in the format of the lines of ``metrics.jsonl``."""
    metrics, rows = summary.get("metrics"), summary.get("rows")
    lines = [(summary.get("global_step"), metrics)] if isinstance(metrics, dict) else []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("metrics"), dict):
            lines.append((f"{row.get('checkpoint')}, {row.get('dataloader')}", row["metrics"]))
    return [
        json.dumps({"step": where, "name": name, "value": value}).encode() + b"\n"
        for where, values in lines
        for name, value in values.items()
    ]


def _amount(lines: Sequence[bytes]) -> str:
    """Return the number of metrics and the step of the last metric, such as ``80 metrics up to step 1000``."""
    if not lines:
        return "no metrics"
    where, _, _ = next(iter(_read(lines[-1:])))
    return f"{len(lines):,} metric{'s' if len(lines) > 1 else ''} up to {where}"


def _read(lines: Sequence[bytes]) -> dict[_Key, str]:
    """Return the recorded string of each metric value in the lines."""
    found: dict[_Key, str] = {}
    num_found: Counter[tuple[str, str]] = Counter()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line, parse_float=str, parse_int=str)
            where, name, text = _place(str(entry["step"])), str(entry["name"]), str(entry["value"])
        except (ValueError, TypeError, KeyError, RecursionError):
            where, name, text = f"line {number}", "unreadable metric", line.decode(errors="replace").strip()
        found[where, name, num_found[where, name]] = text
        num_found[where, name] += 1
    return found


def _place(step: str) -> str:
    return f"step {step}" if step.isdecimal() else on_one_line(step, _MAX_CHARACTERS)


def _describe_differences(theirs: Sequence[bytes], ours: Sequence[bytes]) -> str:
    """Describe the first difference, the largest difference, the number of differences, and metrics of only one run."""
    there, here = _read(theirs), _read(ours)
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    if not keys:
        return "the metrics are equal, but their order or format differs"
    keys.sort(key=lambda key: _step(key[0]))
    said = [f"first difference at {_describe(keys[0], there, here)}"]
    shared = [key for key in keys if key in there and key in here]
    largest = max(shared, key=lambda key: _distance(there[key], here[key]), default=keys[0])
    if largest != keys[0]:
        said.append(f"the largest at {_describe(largest, there, here)}")
    said.append(f"{len(keys):,} of {len({**there, **here}):,} metrics differ")
    for side, one, other in (("recorded", there, here), ("new", here, there)):
        num_alone = sum(key not in other for key in one)
        if num_alone:
            said.append(f"{num_alone:,} only in the {side} run")
    return "; ".join(said)


def _describe(key: _Key, there: Mapping[_Key, str], here: Mapping[_Key, str]) -> str:
    where, name, _ = key
    values = [on_one_line(side[key], _MAX_CHARACTERS) if key in side else "none" for side in (there, here)]
    distance = _distance(there[key], here[key]) if key in there and key in here else math.inf
    by = f" ({distance:.2g})" if math.isfinite(distance) else ""
    place = on_one_line(f"{where}, {name}", _MAX_CHARACTERS)
    return f"{place}: {values[0]} recorded, {values[1]} now{by}"


def _distance(one: str, other: str) -> float:
    """Return the absolute difference of two numbers, or infinity if one of the two strings is not a finite number."""
    try:
        distance = abs(float(one) - float(other))
    except ValueError:
        return math.inf
    return distance if math.isfinite(distance) else math.inf


def _step(where: str) -> float:
    try:
        return float(where.removeprefix("step "))
    except ValueError:
        return math.inf
