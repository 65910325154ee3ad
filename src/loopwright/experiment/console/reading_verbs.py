"""`READING_VERBS`, the table of the commands that only read what runs have left, and functions that parse their words.

These commands import neither torch nor Hydra. A new command is one entry of the table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from loopwright.errors import SettingError

_OPERATOR = re.compile(r"[=<>]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingVerb:
    """A command that only reads run directories.

    Args:
        meaning: line of ``loopwright --help``.
        arguments: directories and options of the command, as the help shows them.
        function: module and name of the function that carries out the command, as ``module:function``. The function
            takes a `CommandLine` and returns the exit code.
        least: smallest number of directories.
        most: largest number of directories; None: no limit.
    """

    meaning: str
    arguments: str
    function: str
    least: int = 1
    most: int | None = 1


_VERBS = "loopwright.experiment.verbs"

READING_VERBS: Mapping[str, ReadingVerb] = MappingProxyType(
    {
        "runs": ReadingVerb(
            meaning="runs [DIR]: list the runs in outputs/, newest first, such as runs state=failed sort=val/loss",
            arguments="[DIR] [KEY=VALUE …] [sort=KEY] [limit=N] [columns=KEY,KEY] [sweeps=open] [format=json|csv|md]",
            function=f"{_VERBS}.runs_verb:list_runs",
            least=0,
        ),
        "show": ReadingVerb(
            meaning="show DIR: show one run or one sweep on one screen, with the commands that can come next",
            arguments="DIR [format=json]",
            function=f"{_VERBS}.show_verb:show",
        ),
        "compare": ReadingVerb(
            meaning="compare DIR DIR …: show what differs between runs, or between sweeps, and their metrics",
            arguments="DIR DIR [DIR …] [all=true] [format=json|csv|md]",
            function=f"{_VERBS}.compare_verb:compare",
            least=2,
            most=None,
        ),
        "lineage": ReadingVerb(
            meaning="lineage DIR: show where the weights of a run come from, and which runs start from them",
            arguments="DIR [format=json|csv|md]",
            function=f"{_VERBS}.lineage_verb:lineage",
        ),
        "report": ReadingVerb(
            meaning="report DIR: write an HTML page about a run, or one page that compares several runs",
            arguments="DIR [DIR …] [output=FILE]",
            function=f"{_VERBS}.report_verb:report",
            most=None,
        ),
    }
)


def split_reading_words(verb: str, words: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the directories and the options among the words after a command of `READING_VERBS`.

    A word without ``=``, ``<`` and ``>`` is a directory, and so is a word that begins with ``/``, ``./`` or ``../``. If
    the command needs a directory, an existing path is always a directory.

    Raises:
        SettingError: for too few or too many directories.
    """
    known = READING_VERBS[verb]
    directories = tuple(word for word in words if _is_directory(word, needed=known.least > 0))
    if not known.least <= len(directories) <= (len(words) if known.most is None else known.most):
        numbers = {1: "one run directory" if known.most == 1 else "a run directory", 2: "two or more run directories"}
        expected = numbers.get(known.least, "at most one directory")
        shown = known.arguments.partition(" [KEY" if known.least == 0 else " [format")[0]
        given = f", not {len(directories)}" if directories else ""
        problem = f": expected {expected}{given}; use loopwright {verb} {shown}."
        raise SettingError(verb, problem)
    return directories, [word for word in words if word not in directories]


def _is_directory(word: str, *, needed: bool) -> bool:
    if _OPERATOR.search(word) is None or word.startswith(("/", "./", "../")):
        return True
    return needed and os.path.lexists(word)
