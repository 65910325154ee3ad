"""Functions that read the settings of Loopwright in the ``pyproject.toml`` of the current directory.

The current directory can come from an untrusted source. ``config_dir`` must name a directory inside the current
directory. `loopwright.experiment.gate.trust` checks ``trust``.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from pathlib import Path

from loopwright.errors import SettingError, did_you_mean, on_one_line, refuse, refuse_type
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import complain
from loopwright.regular_files import read_regular

_NAME = "pyproject.toml"
_CONFIG_DIR = "pyproject.toml: tool.loopwright.config_dir"
_KEYS = ("config_dir", "trust")
_MAX_BYTES = 1_000_000


def read_project_file(cwd: Path) -> object:
    """Return the content of the ``pyproject.toml`` in a directory, or an empty dict if there is no such file.

    Raises:
        SettingError: if the file cannot be read, is larger than 1 MB, is not valid TOML, or has an unknown key under
            ``tool.loopwright``.
    """
    file = cwd / _NAME
    if not file.is_file():
        return {}
    try:
        content: object = tomllib.loads(read_regular(file, _MAX_BYTES, follows_links=True).decode())
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise refuse(_NAME, str(file), "valid TOML", reason) from error
    settings = entry(content, "tool", "loopwright")
    unknown = [key for key in settings if key not in _KEYS] if isinstance(settings, dict) else []
    if unknown:
        hint = did_you_mean(unknown[0], _KEYS)
        setting = f"{_NAME}: tool.loopwright.{on_one_line(unknown[0], 80)}"
        raise SettingError(setting, f": no such key. Available: {', '.join(_KEYS)}.{hint}")
    return content


def entry(content: object, *keys: str) -> object:
    """Return the value at ``keys`` in nested tables, or None if a key is missing.

    If an intermediate value is not a table, this value is returned.
    """
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else content
    return content


def with_config_dir(line: CommandLine, cwd: Path, *, is_quiet: bool = False) -> CommandLine:
    """Return a command line with the ``config_dir`` of the ``pyproject.toml``. Print this directory to stderr.

    A command line with ``--config-dir`` is returned unchanged.

    Args:
        line: command line.
        cwd: current directory.
        is_quiet: whether to print nothing.

    Raises:
        SettingError: for an error of `read_project_file`, and if ``config_dir`` is not the relative path of a directory
            inside ``cwd``. A link to a directory outside ``cwd`` is refused, too.
    """
    if line.config_dir is not None:
        return line
    settings = entry(read_project_file(cwd), "tool", "loopwright")
    given = settings.get("config_dir") if isinstance(settings, dict) else None
    if given is None:
        return line
    if not isinstance(given, str):
        raise refuse_type(_CONFIG_DIR, given, "the relative path of a directory")
    root = os.path.realpath(cwd)
    is_relative = given.isprintable() and not os.path.isabs(given) and os.pardir not in Path(given).parts
    if not is_relative or os.path.commonpath([root, os.path.realpath(cwd / given)]) != root:
        remedy = "to use another directory, type --config-dir DIR"
        raise refuse(_CONFIG_DIR, given, "the relative path of a directory inside the directory of this file", remedy)
    if not os.path.isdir(cwd / given):
        raise refuse(_CONFIG_DIR, given, "an existing directory")
    if not is_quiet:
        complain(f"loopwright: configuration directory of {cwd / _NAME}: {given}")
    return replace(line, config_dir=given)
