"""`completions`, which completes commands, flags and paths in a command line. Hydra completes overrides."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence

from loopwright.experiment.console.command_line import FLAGS, VERBS, VERIFIABLE, WITH_PATH
from loopwright.experiment.console.reading_verbs import READING_VERBS

_OPTION = re.compile(r"\[([a-z]+)=")  # an option in the arguments of a command
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
    if verb == "verify" and not rest:
        return [what for what in VERIFIABLE if what.startswith(current)], None
    if verb in READING_VERBS:
        options = [f"{name}=" for name in _OPTION.findall(READING_VERBS[verb].arguments)]
        return [*_paths(current, with_files=False), *(name for name in options if name.startswith(current))], None
    overrides = rest[1:] if verb in WITH_PATH or verb == "verify" else rest if verb in VERBS else plain
    return [], " ".join([typed[0], *overrides, current])


def _without_flags(words: Sequence[str]) -> list[str]:
    values = {index + 1 for index, word in enumerate(words) if word in _WITH_VALUE}
    return [word for index, word in enumerate(words) if index not in values and not word.startswith("-")]


def _paths(start: str, *, with_files: bool) -> list[str]:
    """Return the directories, and optionally the files, whose paths begin with ``start``."""
    found = sorted(glob.glob(glob.escape(start) + "*"))
    return [f"{path}/" if os.path.isdir(path) else path for path in found if with_files or os.path.isdir(path)]
