"""An error about a value of a user's file names the file and the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer

Cli = Callable[..., Answer]

FILE = """\
# @package _global_
defaults:
  - override /callbacks: [default, ema]

loop:
  eval_frequency: 1.5
callbacks:
  ema:
    decay: 5
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "first.yaml").write_text(FILE)
    return "--config-dir=mine"


@pytest.mark.parametrize("verb", ["plan", "config"])
def test_the_line_that_sets_the_wrong_value_is_named(cli: Cli, own: str, verb: str) -> None:
    answer = cli(verb, own, "experiment=first")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("loop.eval_frequency=1.5: expected a positive whole number of steps")
    assert answer.err.endswith("use null to turn validation off. Set by mine/experiment/first.yaml:6.\n")


def test_an_error_that_needs_torch_names_the_line_too(cli: Cli, own: str) -> None:
    answer = cli("plan", own, "experiment=first", "loop.eval_frequency=2")
    assert answer == Answer(
        2, "", "callbacks.ema.decay=5: expected a number in [0, 1). Set by mine/experiment/first.yaml:9.\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=first", "loop.eval_frequency=2.5"],  # the value was typed
        ["log_every_n_steps=0"],
        ["experiment=first", "loop.eval_frequency=2", "callbacks.ema.decay=7"],
        ["optimizer.lr=word"],
        ["loop.eval_frequency=2", "experiment=first", "-m", "seed=0,1"],  # in a sweep, jobs may set other values
        ["model=nothing"],
    ],
    ids=" ".join,
)
def test_other_errors_are_unchanged(cli: Cli, own: str, words: list[str]) -> None:
    answer = cli("plan", own, *words)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert "Set by" not in answer.err
