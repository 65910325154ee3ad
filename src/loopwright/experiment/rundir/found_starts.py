"""`with_found_starts`, which finds the runs that ``ckpt_path`` and ``init_from`` name."""

from __future__ import annotations

from dataclasses import replace

from loopwright.experiment.compose.overrides import override_text
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.rundir.find_run import find_run

STARTS = ("ckpt_path", "init_from")


def with_found_starts(line: CommandLine) -> CommandLine:
    """Return the command line with paths instead of ``last`` or six digits in ``ckpt_path`` and ``init_from``.

    Raises:
        CheckpointError: if no run, or more than one run, is found.
    """
    found: dict[str, str] = {}
    for word in line.overrides:
        key, _, value = word.partition("=")
        if key in STARTS and (path := find_run(value)) != value:
            found[word] = override_text(key, path)
    overrides, words = (tuple(found.get(word, word) for word in given) for given in (line.overrides, line.words))
    return replace(line, overrides=overrides, words=words)
