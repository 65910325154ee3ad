"""The help of one command: what it does, its argument, and the flags that it takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from command import Answer
from loopwright.experiment.console.command_line import VERBS

Cli = Callable[..., Answer]


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_has_its_own_help(cli: Cli, verb: str) -> None:
    answer = cli(verb, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"loopwright {verb} ")
    assert "Configuration groups" not in answer.out and "None" not in answer.out


def test_the_help_of_resume_names_its_directory_and_flags(cli: Cli) -> None:
    assert cli("resume", "--help").out == (
        "loopwright resume DIR [loop.max_steps=N] [SECTION.KEY=VALUE …] [--trust NAME] [--allow-env NAME]\n\n"
        "  continue an interrupted run; with loop.max_steps=N, train to step N\n"
        "  DIR is a run directory: its path, the last six digits of its name, or the word last for the run that was "
        "started or resumed most recently.\n\n"
        "All commands and flags: loopwright --help\n"
    )
