"""Completion of commands, flags and paths; the rest of the line is left to Hydra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer
from loopwright.experiment.console.completion import completions

Cli = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "digits").mkdir(parents=True)
    (tmp_path / "weights.pt").touch()


@pytest.mark.parametrize(
    ("line", "own", "for_hydra"),
    [
        ("loopwright res", ["resume"], "loopwright res"),
        ("loopwright model=", [], "loopwright model="),
        ("loopwright -m mod", [], "loopwright -m mod"),
        ("loopwright --m", ["--multirun"], None),
        ("loopwright plan --conf", ["--config-dir"], None),
        ("loopwright --config-dir out", ["outputs/"], None),
        ("loopwright --trust ", [], None),
        ("loopwright resume ", ["outputs/"], None),
        ("loopwright resume outputs/", ["outputs/digits/"], None),
        ("loopwright --trust mine resume out", ["outputs/"], None),
        ("loopwright import-weights w", ["weights.pt"], None),
        ("loopwright resume outputs/digits loop.", [], "loopwright loop."),
        ("loopwright verify wor", ["workers"], None),
        ("loopwright verify resume model=", [], "loopwright model="),
        ("loopwright show out", ["outputs/"], None),
        ("loopwright runs outputs/ li", ["limit="], None),
        ("loopwright plan model=c", [], "loopwright model=c"),
        ("loopwright explain loop.eval_f", ["loop.eval_frequency"], None),
        ("loopwright explain hpar", ["hparams_search"], None),
        ("loopwright explain callbacks.ema.w", ["callbacks.ema.warms_up"], None),
        ("loopwright explain ckpt_", ["ckpt_path", "ckpt_paths"], None),
        ("loopwright explain loop model=c", [], "loopwright model=c"),
        ("loopwright config model=cnn orig", ["origins=true"], "loopwright model=cnn orig"),
    ],
)
def test_the_last_word_is_completed(line: str, own: list[str], for_hydra: str | None) -> None:
    assert completions(line) == (own, for_hydra)


def test_an_empty_line_lists_all_commands() -> None:
    own, for_hydra = completions("loopwright ")
    assert {"plan", "resume", "verify"} <= set(own) and for_hydra == "loopwright "


@pytest.mark.hydra
@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("loopwright res", "resume\n\n"),
        ("loopwright resume outputs/digits model=cn", "model=cnn\n"),
        ("loopwright import-weights w", "weights.pt\n"),
    ],
)
def test_the_command_prints_its_own_completions_and_those_of_hydra(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, line: str, printed: str
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert cli("-sc", "query=bash") == Answer(0, printed, "")
