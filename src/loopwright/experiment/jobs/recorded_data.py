"""Functions that find the data of a recorded run again, and compare them with the properties that the run recorded.

Relative paths in a recorded configuration are relative to the directory in which the run was started, which
``summary.json`` contains as ``cwd``. If that directory does not contain the recorded data, but the current directory
does, the current directory is used. This is the case if a project was copied or moved together with its runs.
"""

from __future__ import annotations

import copy
import glob
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopwright.data import Splits
from loopwright.errors import SettingError, on_one_line
from loopwright.experiment.compose.overrides import override_text
from loopwright.experiment.console.command_line import shell_line
from loopwright.experiment.gate.tree import TARGET
from loopwright.experiment.jobs.objects import facts_of
from loopwright.experiment.jobs.recorded import differences
from loopwright.experiment.jobs.recorded_encoding import reads_new_samples
from loopwright.loggers.append_only import plain

# Sections and settings of a configuration that may contain paths of files that a run reads.
_READING = ("data", "model", "callbacks", "loggers", "ckpt_path", "ckpt_paths", "init_from")
_PATH_NAME = re.compile(r"(.*_)?(paths?|files?|filenames?|dirs?|director(y|ies)|folders?|root)|init_from")
# Settings of the data that do not change which samples are read.
_NOT_CONTENT = ("data.batch_size", "data.num_workers")
# Data sets that compute the encoding of any file from the file itself.
_SELF_ENCODING = ("loopwright.data.csv", "loopwright.data.image_folder")
_MAX_CHARACTERS = 300  # maximum length of a line that describes a difference


def started_in(summary: Mapping[str, Any]) -> Path | None:
    """Return the directory in which a recorded run was started, or None if its summary contains no valid directory."""
    given = summary.get("cwd")
    is_path = isinstance(given, str) and given.isprintable() and os.path.isabs(given)
    return Path(str(given)) if is_path else None


def located(config: Mapping[str, Any], directory: Path | None) -> dict[str, Any]:
    """Return a copy of a configuration in which relative paths to existing files in ``directory`` are absolute.

    A string is a path if its setting has a name such as ``path``, ``val_path`` or ``root``. In the settings of a
    class that the user wrote, a string is also a path if it contains a dot or a slash and names a file. Other values
    are not changed.

    Args:
        config: recorded configuration.
        directory: directory in which the run was started. None changes no path.
    """
    if directory is None or directory == Path.cwd():
        return copy.deepcopy(dict(config))
    moved = {name: _located(config[name], directory, _is_path(name)) for name in _READING if name in config}
    return copy.deepcopy({**config, **moved})


def _located(value: Any, directory: Path, is_path: bool | None) -> Any:
    """Return a value with absolute paths. If ``is_path`` is None, strings in the value may be paths."""
    if isinstance(value, list):
        return [_located(each, directory, is_path) for each in value]
    if isinstance(value, dict):
        if TARGET in value:
            is_path = False if str(value[TARGET]).startswith(("loopwright.", "torch.")) else None
        return {
            key: each if str(key).startswith("_") else _located(each, directory, _is_path(str(key)) or is_path)
            for key, each in value.items()
        }
    if not isinstance(value, str) or not value or is_path is False or os.path.isabs(value):
        return value
    place = os.path.join(directory, value)
    try:
        if is_path and not os.path.lexists(place) and glob.has_magic(value):
            pattern = os.path.join(glob.escape(str(directory)), value)
            return pattern if glob.glob(pattern, recursive=True) else value
        exists = os.path.lexists(place) if is_path else ("." in value or "/" in value) and os.path.isfile(place)
    except ValueError:  # a null character
        return value
    return place if exists else value


def _is_path(name: str) -> bool:
    return _PATH_NAME.fullmatch(name) is not None


def types_data(typed: Sequence[str]) -> bool:
    """Return whether an override chooses other data than the recorded data."""
    keys = {word.lstrip("+~").partition("=")[0].strip() for word in typed}
    return any(key == "data" or (key.startswith("data.") and key not in _NOT_CONTENT) for key in keys)


def data_differences(summary: Mapping[str, Any], data: Splits) -> list[str]:
    """Return a line for each recorded property of the data that is different now, such as a SHA-256.

    Paths are not compared: the SHA-256 decides whether the data are those that the run read.
    """
    recorded = summary.get("data")
    before = recorded if isinstance(recorded, dict) else {}
    before = {name: value for name, value in before.items() if not _is_path(name)}
    if not before:
        return []
    now = json.loads(json.dumps(plain(facts_of(data))))
    lines = differences(before, {name: now[name] for name in before if name in now}, "data")
    return [on_one_line(line, _MAX_CHARACTERS) for line in lines]


def refuse_other_data(summary: Mapping[str, Any], data: Splits, remedy: str) -> None:
    """Refuse data that differ from the recorded data.

    Args:
        summary: summary of the recorded run.
        data: data that were built again.
        remedy: end of the error message.

    Raises:
        SettingError: if a recorded property of the data, such as a SHA-256, has another value now.
    """
    changes = data_differences(summary, data)
    if changes:
        raise SettingError("data", f": not the data that the run read ({'; '.join(changes)}); {remedy}.")


def to_use_them(node: Mapping[str, Any], encoding: Mapping[str, Any] | None) -> str:
    """Return the remedy that names an override with which a command uses other data than the recorded data.

    Args:
        node: section ``data`` of the configuration.
        encoding: content of ``data.json`` of the run; None: the run has no such file.
    """
    given = {name: value for name, value in node.items() if isinstance(value, str) and _is_path(str(name))}
    if reads_new_samples(encoding) and "path" in given:
        new = given.get("val_path") or given["path"]
        line = shell_line([override_text("data.path", new)])
        return f"to use all samples of {new!r}, encoded as the run recorded, type {line}"
    if node.get(TARGET) in _SELF_ENCODING and encoding is None:  # an older run
        return "restore the data that the run read"
    name = next(iter(given), None)
    example = "data.NAME=VALUE" if name is None else shell_line([override_text(f"data.{name}", given[name])])
    return f"to use these data, type one of their settings, such as {example}"


def with_directories(error: SettingError, summary: Mapping[str, Any]) -> SettingError:
    """Return an error about a missing data file with the directories in which relative paths are searched."""
    directory = started_in(summary)
    if directory in (None, Path.cwd()) or not error.setting.startswith("data.") or "no such f" not in error.problem:
        return error
    searched = "and its relative paths are searched there and in the current directory"
    return type(error)(error.setting, f"{error.problem} The run was started in {directory}, {searched}.")
