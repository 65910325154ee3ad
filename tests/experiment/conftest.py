"""Fixtures that run the command in an empty directory, with a run that takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from command import SMALL, Answer
from loopwright.cli import main


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Return a function that runs the command in an empty directory, in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Answer:
        code = main(words)
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call


@pytest.fixture
def small(cli: Callable[..., Answer]) -> Callable[..., Answer]:
    """Return a function that runs the command with four steps; its words replace default words of the same key."""

    def call(*words: str) -> Answer:
        keys = {word.lstrip("+~").split("=")[0] for word in words}
        return cli(*words, *[word for word in SMALL if word.split("=")[0] not in keys])

    return call
