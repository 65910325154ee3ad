"""Saving from the command line: a full disk is one line with exit code 1, and retention can be set."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import Answer
from loopwright.checkpoint import write

Cli = Callable[..., Answer]


class FullAt:
    """Replaces `os` in the writing module; the disk is full while the checkpoints of some steps are written."""

    def __init__(self, *steps: int) -> None:
        self._names = {f"step_{step:08d}" for step in steps}
        self._is_full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def mkdir(self, path: Path) -> None:
        self._is_full = any(path.name.endswith(name) for name in self._names)
        os.mkdir(path)

    def write(self, descriptor: int, data: memoryview) -> int:
        if self._is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(descriptor, data)


def steps(run_dir: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in (run_dir / "checkpoints").iterdir())


def test_a_full_disk_is_one_line_with_exit_code_1_and_the_run_can_be_resumed(
    small: Cli, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(write, "os", FullAt(4))
        answer = small("hydra.run.dir=run")
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("run/checkpoints/step_00000004: not saved: No space left on device; ")
    assert " bytes needed, " in answer.err and " free (traceback in run/run.log)" in answer.err
    assert steps(tmp_path / "run") == [2]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["state"] == "failed"
    assert cli("resume", "run").code == 0
    assert steps(tmp_path / "run") == [2, 4]


@pytest.mark.slow
def test_a_full_disk_during_a_background_save_is_reported_the_same_way(
    small: Cli, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(write, "os", FullAt(4))
        answer = small("hydra.run.dir=run", "checkpoint.background=true")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert answer.err.startswith("run/checkpoints/step_00000004: not saved: No space left on device; ")
    assert steps(tmp_path / "run") == [2]
    assert cli("resume", "run", "checkpoint.background=false").code == 0
    assert steps(tmp_path / "run") == [2, 4]


def test_a_run_with_continue_reports_the_error_and_continues(
    small: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "os", FullAt(2))
    answer = small("hydra.run.dir=run", "checkpoint.on_save_error=continue")
    assert answer.code == 0
    assert answer.err.count("\n") == 1
    assert "run/checkpoints/step_00000002: not saved: No space left on device; " in answer.err
    assert "training continues. Newest checkpoint: none." in answer.err
    assert steps(tmp_path / "run") == [4]


def test_retention_can_be_set_also_for_a_resumed_run(small: Cli, cli: Cli, tmp_path: Path) -> None:
    few = ("hydra.run.dir=run", "checkpoint.every_n_steps=1", "checkpoint.keep_last=2", "loop.eval_frequency=null")
    assert small(*few).code == 0
    assert steps(tmp_path / "run") == [3, 4]
    assert cli("resume", "run", "loop.max_steps=9", "checkpoint.keep_last=1", "checkpoint.keep_every=3").code == 0
    assert steps(tmp_path / "run") == [3, 6, 9]
    answer = small("checkpoint.keep_every=3")
    assert (answer.code, answer.err) == (
        2,
        "checkpoint.keep_every=3: expected a multiple of every_n_steps=2, as other steps need not be saved; try 4.\n",
    )
