"""Functions that locate the data of a recorded run and compare the data with recorded facts, such as a SHA-256.

Relative paths in a recorded configuration are relative to the directory in which the run was started. The file
``summary.json`` contains this directory as ``cwd``. If only the current directory contains the recorded data, the
data are read from the current directory. A project can therefore be moved or copied together with its runs.
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
from loopwright.loggers.append_only import plain
from loopwright.records import reads_new_samples

# Sections and settings of a configuration that can contain paths of files to read.
_READING = ("data", "model", "callbacks", "loggers", "ckpt_path", "ckpt_paths", "init_from")
_PATH_NAME = re.compile(r"(.*_)?(paths?|files?|filenames?|dirs?|director(y|ies)|folders?|root)|init_from")
# Settings of the section ``data`` that do not affect which samples are read.
_NOT_CONTENT = ("data.batch_size", "data.num_workers")
# Functions that compute the encoding of the data (the content of ``data.json``) from the files that they read.
_SELF_ENCODING = ("loopwright.data.csv", "loopwright.data.image_folder")
_MAX_CHARACTERS = 300  # maximum length of a line that describes a difference


def started_in(summary: Mapping[str, Any]) -> Path | None:
    """Return the directory in which a recorded run was started, or None if its summary contains no absolute path."""
    given = summary.get("cwd")
    is_path = isinstance(given, str) and given.isprintable() and os.path.isabs(given)
    return Path(str(given)) if is_path else None


def located(config: Mapping[str, Any], directory: Path | None) -> dict[str, Any]:
    """Return a copy of a configuration in which relative paths to existing files in ``directory`` are absolute.

    A string is a path or a glob pattern if its setting has a name such as ``path``, ``val_path`` or ``root``. In the
    settings of a class outside ``loopwright`` and ``torch``, a string is also a path if it contains a dot or a slash
    and names a file in ``directory``. All other values are not changed.

    Args:
        config: recorded configuration.
        directory: directory in which the run was started. For None and for the current directory, an unchanged copy is
            returned.
    """
    if directory is None or directory == Path.cwd():
        return copy.deepcopy(dict(config))
    moved = {name: _located(config[name], directory, _is_path(name)) for name in _READING if name in config}
    return copy.deepcopy({**config, **moved})


def _located(value: Any, directory: Path, is_path: bool | None) -> Any:
    """Return a copy of a value with absolute paths.

    Args:
        value: value of a setting.
        directory: directory to which relative paths are relative.
        is_path: whether a string in the value is a path; None: a string is a path if it contains a dot or a slash and
            names a file.
    """
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
    except ValueError:  # the value contains a null character
        return value
    return place if exists else value


def _is_path(name: str) -> bool:
    return _PATH_NAME.fullmatch(name) is not None


def types_data(typed: Sequence[str]) -> bool:
    """Return whether an override changes which data are read.

    Args:
        typed: overrides as typed.
    """
    keys = {word.lstrip("+~").partition("=")[0].strip() for word in typed}
    return any(key == "data" or (key.startswith("data.") and key not in _NOT_CONTENT) for key in keys)


def data_differences(summary: Mapping[str, Any], data: Splits) -> list[str]:
    """Return a line for each recorded fact about the data, such as a SHA-256, that has another value now.

    Paths are not compared, because the files may have been moved without a change of their content.
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
        data: data to compare with the recorded facts.
        remedy: end of the error message, with the action that resolves the error.

    Raises:
        SettingError: if a recorded fact about the data, such as a SHA-256, has another value now.
    """
    changes = data_differences(summary, data)
    if changes:
        raise SettingError("data", f": not the data that the run read ({'; '.join(changes)}); {remedy}.")


def to_use_them(node: Mapping[str, Any], encoding: Mapping[str, Any] | None) -> str:
    """Return the end of the error message about changed data.

    This text contains an override that accepts the present data, or the advice to restore the recorded data.

    Args:
        node: section ``data`` of the recorded configuration.
        encoding: content of ``data.json`` of the run; None: the run has no such file.
    """
    given = {name: value for name, value in node.items() if isinstance(value, str) and _is_path(str(name))}
    if reads_new_samples(encoding) and "path" in given:
        new = given.get("val_path") or given["path"]
        line = shell_line([override_text("data.path", new)])
        return f"to use all samples of {new!r} with the encoding in data.json of the run, type {line}"
    if node.get(TARGET) in _SELF_ENCODING and encoding is None:  # a run of a version that wrote no data.json
        return "restore the data that the run read"
    name = next(iter(given), None)
    example = "data.NAME=VALUE" if name is None else shell_line([override_text(f"data.{name}", given[name])])
    remedy = "add a setting of the section data to the command, even with its present value, such as"
    return f"to accept the data as they are now, {remedy} {example}"


def with_directories(error: SettingError, summary: Mapping[str, Any]) -> SettingError:
    """Add the searched directories to an error about a missing data file. Other errors are returned unchanged."""
    directory = started_in(summary)
    if directory in (None, Path.cwd()) or not error.setting.startswith("data.") or "no such f" not in error.problem:
        return error
    searched = "and its relative paths are searched there and in the current directory"
    return type(error)(error.setting, f"{error.problem} The run was started in {directory}, {searched}.")
