"""Functions that compare the encoding of data with the encoding that a run recorded in its ``data.json``.

An encoding contains, for example, the means of columns and the label of each class. A model gives wrong predictions,
without an error, for data whose encoding differs from the encoding of its training data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopwright.data import Splits
from loopwright.errors import SettingError, on_one_line
from loopwright.experiment.compose.overrides import override_text
from loopwright.experiment.console.command_line import command_on, shell_line
from loopwright.records import encoding_text, read_encoding, reads_new_samples

_MAX_CHARACTERS = 200  # maximum length of a line that describes a difference
_MAX_LINES = 3
_MAX_VALUES = 10  # for a longer list, a message shows only the values that the other list lacks
# The last digits of a mean or deviation depend on the number of threads that computed it.
_TOLERANCE = 1e-9


def refuse_other_encoding(run_dir: Path, data: Splits, remedy: str) -> None:
    """Refuse data whose encoding differs from the encoding of a run's data. Accept the data if an encoding is unknown.

    Args:
        run_dir: directory of the run.
        data: data on which the model of the run is used.
        remedy: end of the error message, with the action that resolves the error.

    Raises:
        SettingError: if the encodings differ. The message names up to three differences.
        CheckpointError: if the ``data.json`` of the run cannot be read.
    """
    recorded = read_encoding(run_dir)
    if recorded is None or data.encoding is None:
        return
    lines = encoding_differences(recorded, json.loads(encoding_text(data.encoding)))
    if lines:
        shown = [on_one_line(line, _MAX_CHARACTERS) for line in lines[:_MAX_LINES]]
        more = [f"and {len(lines) - _MAX_LINES} more"] if len(lines) > _MAX_LINES else []
        problem = f": encoded differently than the data of {run_dir} ({'; '.join([*shown, *more])}); {remedy}."
        raise SettingError("data", problem)


def encoding_differences(recorded: Any, now: Any, path: str = "", scale: float = 0.0) -> list[str]:
    """Return a line ``name: X recorded, Y now`` for each difference between two encodings.

    Args:
        recorded: JSON value of the recorded encoding.
        now: JSON value of the present encoding.
        path: path of ``recorded`` and ``now`` in their encodings.
        scale: standard deviation of the column that contains the values; 0 if the values are not in a column.
    """
    if isinstance(recorded, Mapping) and isinstance(now, Mapping):
        deviation = recorded.get("deviation")
        scale = abs(deviation) if isinstance(deviation, float) else 0.0
        prefix = f"{path}." if path else ""
        names = sorted({**recorded, **now}, key=lambda name: name != "target")  # the target is compared first
        missing = object()
        values = [(name, recorded.get(name, missing), now.get(name, missing)) for name in names]
        lines = [f"{prefix}{name}: only recorded" for name, _, ours in values if ours is missing]
        lines += [f"{prefix}{name}: not recorded" for name, theirs, _ in values if theirs is missing]
        both = [each for each in values if missing not in each]
        return lines + [
            line for name, theirs, ours in both for line in encoding_differences(theirs, ours, f"{prefix}{name}", scale)
        ]
    if isinstance(recorded, list) and isinstance(now, list):
        return _list_differences(recorded, now, path)
    if isinstance(recorded, float) and isinstance(now, float):
        is_equal = abs(recorded - now) <= _TOLERANCE * max(abs(recorded), scale)
    else:
        is_equal = type(recorded) is type(now) and recorded == now
    return [] if is_equal else [f"{path}: {_shown(recorded)} recorded, {_shown(now)} now"]


def _list_differences(recorded: Sequence[Any], now: Sequence[Any], path: str) -> list[str]:
    """Compare two lists. Columns, which are mappings with a ``name``, are compared by their names."""
    theirs, ours = _names(recorded), _names(now)
    if theirs == ours and len(recorded) == len(now):
        pairs = zip(theirs, recorded, now, strict=True)
        return [line for name, old, new in pairs for line in encoding_differences(old, new, f"{path}.{name}")]
    if max(len(theirs), len(ours)) <= _MAX_VALUES:
        return [f"{path}: {theirs} recorded, {ours} now"]
    gone = [name for name in theirs if name not in set(map(str, ours))]
    added = [name for name in ours if name not in set(map(str, theirs))]
    parts = [f"{what} {names[:_MAX_VALUES]}" for what, names in (("only recorded", gone), ("only now", added)) if names]
    return [f"{path}: {', '.join(parts) or 'in another order'}"]


def _shown(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else repr(value)


def _names(values: Sequence[Any]) -> list[str]:
    """Return the name of each column in a list of columns. For a list of other values, return each value as text."""
    return [str(value.get("name")) if isinstance(value, Mapping) else str(value) for value in values]


def to_validate_new(run_dir: Path, now: Mapping[str, Any], permissions: Sequence[str]) -> str:
    """Return the remedy for a composed validation whose encoding differs from the encoding of the run.

    Args:
        run_dir: directory of the run.
        now: section ``data`` of the validation.
        permissions: flags of the command, such as ``--trust=NAME``.
    """
    if not reads_new_samples(read_encoding(run_dir)) or not isinstance(now.get("path"), str):
        return f"to validate on the data of the run: {command_on('validate', run_dir, permissions)}"
    new = str(now.get("val_path") or now["path"])
    line = command_on("validate", run_dir, permissions, override_text("data.path", new))
    return f"to validate on all samples of {new!r} with the encoding of the run: {line}"


def without(typed: Sequence[str]) -> str:
    """Return the remedy for a command on a recorded run if the present encoding differs from the recorded encoding.

    Args:
        typed: overrides of the command.
    """
    words = [word for word in typed if word.startswith("data.")]
    if not words:
        return "restore the code and the files from which the data are built"
    return f"leave out {shell_line(words)}"
