"""Fixtures that run the command in an empty directory, and a small run that it left."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer, run_in, small_run
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

    return lambda *words: cli(*small_run(*words))


@pytest.fixture(scope="session")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of four steps, which all tests share and none changes."""
    root = tmp_path_factory.mktemp("recorded")
    assert run_in(root, *small_run("hydra.run.dir=run")).code == 0
    return root / "run"


@pytest.fixture
def recorded(run_once: Path, tmp_path: Path) -> Path:
    """A copy of that directory, ``run`` in the directory of the command; a test may change it."""
    return Path(shutil.copytree(run_once, tmp_path / "run"))
