"""`read_run` and `find_runs` over directories as runs leave them, and over damaged and foreign directories."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loopwright.errors import CheckpointError
from loopwright.records import find_checkpoints, find_runs, read_num_steps, read_run
from loopwright.run_lock import hold, is_locked

RUN = "2026-12-01_09-15-05_c623ba"


def make_run(outputs: Path, name: str = "digits", folder: str = RUN, **summary: Any) -> Path:
    directory = outputs / name / folder
    directory.mkdir(parents=True)
    (directory / "summary.json").write_text(json.dumps({"state": "completed", **summary}))
    return directory


def test_all_fields_of_a_summary_are_read(tmp_path: Path) -> None:
    directory = make_run(
        tmp_path,
        started="2026-12-01T09:15:05+00:00",
        ended="2026-12-01T09:16:05+00:00",
        seconds=60.5,
        global_step=100,
        metrics={"val/loss": 0.5, "val/accuracy": "NaN", "text": "high"},
        best={"name": "val/loss", "value": 0.25, "step": 50},
        objective=0.5,
        objective_name="val/loss",
        objective_mode="min",
        changes={"optimizer.lr": [0.003, 0.01], "loop": "none"},
        chosen={"model": "mlp", "experiment": None},
        command="loopwright optimizer.lr=0.01",
        stop={"by": "early_stopping", "reason": "no better value"},
        resumes=[{"checkpoint": "step_00000050"}],
    )
    (directory / "plan.json").write_text('{"settings": {"stop_step": 200}}')
    run = read_run(directory)
    assert (run.id, run.name, run.state, run.is_job, run.is_complete) == ("c623ba", "digits", "completed", False, True)
    assert run.started is not None and run.ended is not None
    assert (run.ended - run.started).total_seconds() == 60
    assert (run.seconds, run.global_step, run.num_steps, run.resumes) == (60.5, 100, 200, 1)
    assert run.metrics["val/loss"] == 0.5 and math.isnan(run.metrics["val/accuracy"]) and "text" not in run.metrics
    assert run.best is not None and (run.best.value, run.best.step) == (0.25, 50)
    assert (run.objective_name, run.objective_mode, run.objective) == ("val/loss", "min", 0.5)
    assert run.changes == {"optimizer.lr": (0.003, 0.01)} and run.chosen == {"model": "mlp"}
    assert run.stop_reason == "no better value"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"state": 3}', '{"state": "finished"}', '{"seconds": 1e999}'])
def test_a_damaged_summary_gives_an_unreadable_run(tmp_path: Path, text: str) -> None:
    directory = make_run(tmp_path)
    (directory / "summary.json").write_text(text)
    run = read_run(directory)
    assert run.state == "unreadable" and run.problem is not None and "summary.json" in run.problem


@pytest.mark.parametrize("value", [None, "x", True, -3, 1.5, [], {"a": 1}, 10**400, "2026-12-01", "a\nb\x1b[31m"])
def test_values_of_other_types_are_ignored(tmp_path: Path, value: Any) -> None:
    names = "started ended seconds global_step metrics best objective objective_name objective_mode changes chosen"
    names += " command cwd error stop resumes weights_sha256"
    run = read_run(make_run(tmp_path, **dict.fromkeys(names.split(), value)))
    assert run.state == "completed" and run.started is None and run.global_step == 0 and run.best is None
    assert run.command is None or run.command.isprintable()


def test_a_running_run_whose_lock_no_process_holds_is_lost(tmp_path: Path) -> None:
    directory = make_run(tmp_path, state="running")
    assert read_run(directory).state == "lost"
    with hold(directory):
        assert read_run(directory).state == "running"
        assert _state_elsewhere(directory) == "running"  # reading did not release the lock
    assert not is_locked(directory)
    assert _state_elsewhere(directory) == "lost"


def _state_elsewhere(directory: Path) -> str:
    code = "import sys; from pathlib import Path; from loopwright.records import read_run; "
    code += "assert 'torch' not in sys.modules; print(read_run(Path(sys.argv[1])).state)"
    done = subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_runs_and_sweeps_are_found_and_jobs_are_not(tmp_path: Path) -> None:
    first = make_run(tmp_path, name="a")
    typed = make_run(tmp_path, name=".", folder="typed")
    sweep = tmp_path / "a" / "2026-12-01_09-15-05_7d1c4e_sweep"
    job = make_run(sweep, name=".", folder="3")
    (sweep / "sweep.json").write_text("{}")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "link").symlink_to(first)
    assert find_runs(tmp_path) == ([first, typed], [sweep])
    assert find_runs(first) == ([first], []) and find_runs(tmp_path / "missing") == ([], [])
    assert (read_run(job).id, read_run(job).name, read_run(job).is_job) == ("7d1c4e/3", "a", True)
    assert (read_run(typed).id, read_run(typed).name) == ("typed", "typed")


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a run directory"):
        read_run(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        read_run(tmp_path / "missing")


def test_checkpoints_are_sorted_by_step_and_need_a_manifest(tmp_path: Path) -> None:
    for name in ("step_100000000", "step_00000050", "step_00000100", "step_x", ".step_00000010"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        if name != "step_00000100":
            (tmp_path / "checkpoints" / name / "manifest.json").write_text("{}")
    assert [folder.name for folder in find_checkpoints(tmp_path)] == ["step_00000050", "step_100000000"]
    assert read_num_steps(tmp_path) is None
