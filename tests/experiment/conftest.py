"""The command as tests call it: in a directory of its own, with a run so small that it takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from loopwright.cli import main

SMALL = (
    "data=synthetic",
    "data.num_train=24",
    "data.num_val=8",
    "data.batch_size=4",
    "model.hidden=[4]",
    "loop.max_steps=4",
    "loop.eval_frequency=2",
    "checkpoint.every_n_steps=2",
    "loggers=json_lines",
)


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Call the command in an empty directory, in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Answer:
        code = main(words)
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call


@pytest.fixture
def small(cli: Callable[..., Answer]) -> Callable[..., Answer]:
    """Call the command with a run of four steps; words given replace those of the same key."""

    def call(*words: str) -> Answer:
        keys = {word.lstrip("+~").split("=")[0] for word in words}
        return cli(*[word for word in SMALL if word.split("=")[0] not in keys], *words)

    return call


def run_dirs(root: Path) -> list[Path]:
    """The run directories under ``outputs``, oldest first."""
    found = [path.parent for path in root.glob("outputs/*/*/summary.json")]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)
