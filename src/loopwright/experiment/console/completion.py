"""`completions`, which completes commands, flags and paths in a command line. Hydra completes overrides."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from loopwright.experiment.console.command_line import FLAGS, VERBS, VERIFIABLE, WITH_PATH
from loopwright.experiment.console.help_text import config_groups
from loopwright.experiment.console.reading_verbs import READING_VERBS
from loopwright.shipped import conf_dir

_OPTION = re.compile(r"\[([a-z]+)=")  # an option in the arguments of a command
_KEY = re.compile(r"^( *)(\w+):", re.MULTILINE)
_OPTIONS = {"config": ("origins=true", "format=json", "format=csv", "format=md"), "explain": ("format=json",)}
_WITH_VALUE = ("--trust", "--allow-env", "--config-dir", "-cd")


def completions(line: str) -> tuple[list[str], str | None]:
    """Complete the last word of a command line.

    Args:
        line: command line up to the cursor, beginning with the name of the program.

    Returns:
        The completions of the last word, and a command line for Hydra, which completes overrides. The command line for
        Hydra omits the command and its argument. It is None if the last word cannot be an override.
    """
    typed = line.split()
    current = "" if not typed or line[-1:].isspace() else typed[-1]
    before = typed[1:] if not current else typed[1:-1]
    if before and before[-1] in _WITH_VALUE:
        return ([] if before[-1] in ("--trust", "--allow-env") else _paths(current, with_files=False)), None
    if current.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(current)], None
    plain = _without_flags(before)
    if not plain:
        return [verb for verb in VERBS if verb.startswith(current)], line
    verb, *rest = plain
    if verb in WITH_PATH and not rest:
        return _paths(current, with_files=WITH_PATH[verb] == "FILE"), None
    if verb == "explain" and not rest:
        return [key for key in setting_keys(conf_dir()) if key.startswith(current)], None
    if verb == "verify" and not rest:
        return [what for what in VERIFIABLE if what.startswith(current)], None
    if verb in READING_VERBS:
        options = [f"{name}=" for name in _OPTION.findall(READING_VERBS[verb].arguments)]
        return [*_paths(current, with_files=False), *(name for name in options if name.startswith(current))], None
    has_argument = verb in WITH_PATH or verb in ("explain", "verify")
    overrides = rest[1:] if has_argument else rest if verb in VERBS else plain
    own = [word for word in _OPTIONS.get(verb, ()) if current and word.startswith(current)]
    return own, " ".join([typed[0], *overrides, current])


def setting_keys(directory: Path) -> list[str]:
    """Return the groups and the paths of the settings in a directory of configuration files.

    The paths are read from the indentation of the lines. Files that set values of other groups are not read.
    """
    groups = config_groups([directory])
    files = [(group, directory / group / f"{name}.yaml") for group, names in groups.items() for name in names]
    found = set(groups)
    for group, file in [("", directory / "config.yaml"), *files]:
        text = file.read_text(encoding="utf-8")
        if not text.startswith("# @package _global_"):
            found |= {".".join(filter(None, (group, *path))) for path in _paths_of_keys(text)}
    return sorted(found)


def _paths_of_keys(text: str) -> Iterator[tuple[str, ...]]:
    stack: list[tuple[int, str]] = []
    for indent, key in _KEY.findall(text):
        while stack and stack[-1][0] >= len(indent):
            stack.pop()
        stack.append((len(indent), key))
        path = tuple(name for _, name in stack)
        if path[0] not in ("defaults", "hydra") and not key.startswith("_"):
            yield path


def _without_flags(words: Sequence[str]) -> list[str]:
    values = {index + 1 for index, word in enumerate(words) if word in _WITH_VALUE}
    return [word for index, word in enumerate(words) if index not in values and not word.startswith("-")]


def _paths(start: str, *, with_files: bool) -> list[str]:
    """Return the directories, and optionally the files, whose paths begin with ``start``."""
    found = sorted(glob.glob(glob.escape(start) + "*"))
    return [f"{path}/" if os.path.isdir(path) else path for path in found if with_files or os.path.isdir(path)]
