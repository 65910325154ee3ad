"""Saving from the command line: a full disk is one line with exit code 1, and retention can be set."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import Answer
from loopwright.checkpoint import write
from sealing import read_trees, write_trees

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_retention_can_be_set_also_for_a_resumed_run(small: Cli, cli: Cli, tmp_path: Path) -> None:
    few = ("hydra.run.dir=run", "checkpoint.every_n_steps=1", "checkpoint.keep_last=2", "loop.eval_frequency=null")
    assert small(*few).code == 0
    assert steps(tmp_path / "run") == [3, 4]
    assert cli("resume", "run", "loop.max_steps=9", "checkpoint.keep_last=1", "checkpoint.keep_every=3").code == 0
    assert steps(tmp_path / "run") == [3, 6, 9]
    answer = small("checkpoint.keep_every=3", "checkpoint.at_validations=false")
    assert (answer.code, answer.err) == (
        2,
        "checkpoint.keep_every=3: expected a multiple of every_n_steps=2, because other steps may not be saved; "
        "try 4.\n",
    )


@pytest.mark.slow
def test_the_step_that_the_closing_lines_call_the_best_has_a_checkpoint(small: Cli, cli: Cli, tmp_path: Path) -> None:
    rates = ("optimizer.lr=0.1", "optimizer.weight_decay=0", "scheduler=none")
    length = ("loop.max_steps=24", "loop.eval_frequency=4", "checkpoint.every_n_steps=10", "checkpoint.keep_last=2")
    answer = small("hydra.run.dir=run", *length, *rates)
    assert answer.code == 0
    saves = "saves          before each validation, every 10th global_step and after the last step: 7 in all"
    assert saves in (tmp_path / "run" / "plan.txt").read_text()
    best = json.loads((tmp_path / "run" / "summary.json").read_text())["best"]
    assert f"Best: val/loss {best['value']:.4g} at step {best['step']}\n" in answer.out
    assert best["step"] < 10  # checkpoint.every_n_steps alone would not have saved it
    assert steps(tmp_path / "run") == [best["step"], 20, 24]
    validated = cli("validate", "run", f"ckpt_path=run/checkpoints/step_{best['step']:08d}")
    assert f"val/loss {best['value']:.4g}" in validated.out.splitlines()


def forget_at_validations(run_dir: Path) -> None:
    """Remove the setting from the records of a run, which an older version would not have written."""
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    del config["checkpoint"]["at_validations"]
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    for folder in (run_dir / "checkpoints").iterdir():
        trees = read_trees(folder)
        del trees["state"]["plan"]["checkpoint.at_validations"]
        write_trees(folder, trees)


@pytest.mark.slow
def test_a_run_of_a_version_without_saves_at_validations_keeps_its_saves(small: Cli, cli: Cli, tmp_path: Path) -> None:
    few = ("checkpoint.every_n_steps=3", "checkpoint.keep_last=null", "checkpoint.at_validations=false")
    assert small("hydra.run.dir=run", *few).code == 0
    forget_at_validations(tmp_path / "run")
    assert cli("validate", "run").code == 0
    answer = cli("reproduce", "run", "hydra.run.dir=again")
    assert answer.code == 0, answer.err
    assert steps(tmp_path / "again") == steps(tmp_path / "run") == [3, 4]
    answer = cli("resume", "run", "loop.max_steps=10")
    assert answer.code == 0 and "at_validations" not in answer.err
    assert steps(tmp_path / "run") == [3, 4, 6, 9, 10]
    answer = cli("resume", "run", "loop.max_steps=16", "checkpoint.at_validations=true")
    assert answer.code == 0 and "checkpoint.at_validations: false -> true" in answer.err
    assert steps(tmp_path / "run")[-4:] == [12, 14, 15, 16]
