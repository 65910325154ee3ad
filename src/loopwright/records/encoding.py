"""Functions that check, format and read ``data.json``, the file in which a run records the encoding of its data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from loopwright.errors import CheckpointError, SettingError, on_one_line, refuse, refuse_type
from loopwright.records.series import read_record

DATA_FILE = "data.json"
_NEW_SAMPLES = ("csv", "image_folder")  # kinds of data that `loopwright.data.new_samples` can read
_MAX_BYTES = 64 << 20
_MAX_DEPTH = 50  # maximum levels of nested lists and mappings


def encoding_text(encoding: Mapping[str, Any]) -> str:
    """Format an encoding as the text of ``data.json``. Equal encodings give equal texts.

    Floats are written with enough digits to read back exactly the same number.

    Args:
        encoding: mapping of names to JSON values: strings, finite numbers, booleans, None, lists and mappings.

    Raises:
        SettingError: for a value that JSON cannot represent, for more than 50 levels of nested values, and for a text
            of more than 64 MiB. The message contains the path of an invalid value.
    """
    if not isinstance(encoding, Mapping):
        raise refuse_type("encoding", encoding, "a mapping of names to JSON values, or None")
    text = json.dumps(_as_json("encoding", encoding), indent=2, allow_nan=False) + "\n"
    if len(text) > _MAX_BYTES:
        problem = f": has {len(text):,} bytes as JSON; expected at most {_MAX_BYTES:,}, the limit of {DATA_FILE}."
        raise SettingError("encoding", problem)
    return text


def read_encoding(run_dir: Path) -> dict[str, Any] | None:
    """Return the content of the ``data.json`` of a run, or None if the run has recorded no encoding.

    The names in the mapping depend on the data set of the run. Code that uses a value must check its type.

    Raises:
        CheckpointError: if the file is not a regular file, has more than 64 MiB, contains no JSON mapping, contains a
            number that is not finite, or has more than 50 levels of nesting.
    """
    file = run_dir / DATA_FILE
    data = read_record(file, _MAX_BYTES)
    if data is None:
        return None
    try:
        found = json.loads(data.decode(), parse_constant=_refuse_constant)
        if not isinstance(found, dict):
            raise ValueError("the file contains no mapping")
        return {name: _as_json(name, value, depth=1) for name, value in found.items()}
    except (ValueError, RecursionError) as error:
        problem = f"expected the JSON mapping that a run recorded; {on_one_line(str(error), 200)}"
        raise CheckpointError(f"{on_one_line(str(file))}: {problem}") from None


def reads_new_samples(encoding: Mapping[str, Any] | None) -> bool:
    """Return whether `loopwright.data.new_samples` can encode new samples with the content of a ``data.json``."""
    return encoding is not None and encoding.get("data") in _NEW_SAMPLES


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"found {name}, which is not a finite number")


def _as_json(path: str, value: Any, depth: int = 0) -> Any:
    """Return a copy of ``value`` that consists of dicts, lists and scalars. Refuse values of other types."""
    if isinstance(value, Mapping | list | tuple) and depth == _MAX_DEPTH:
        raise SettingError(path, f": expected at most {_MAX_DEPTH} levels of lists and mappings.")
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise refuse_type(path, name, "strings as names", f"write {str(name)!r}")
        return {name: _as_json(f"{path}.{name}", each, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(f"{path}[{index}]", each, depth + 1) for index, each in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise refuse(path, value, "a finite number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise refuse(path, value, "a whole number of at most 64 bits")
    if value is None or isinstance(value, str | int | float):
        return value
    raise refuse_type(path, value, "text, a finite number, true, false, null, a list or a mapping")
