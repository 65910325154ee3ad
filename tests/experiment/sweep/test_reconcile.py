"""A sweep that was interrupted or killed: its jobs get the states of their directories, and a resume completes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import swept as small_sweeps
from command import Answer, environment
from loopwright.experiment.sweep.index import Attempt, JobEntry
from loopwright.experiment.sweep.index_file import read_index
from loopwright.experiment.sweep.reconcile import ended_entry, has_other_runner, newest_checkpoint, reconciled
from loopwright.run_lock import hold, is_locked
from sweeps import as_killed, change_index, index_of, results_of, states_of

Cli = Callable[..., Answer]
Lock = Callable[[Path], AbstractContextManager[None]]
RESUME = ("--trust=told", "sweep", "resume", "s")


def group_lines(cli: Cli, directory: Path) -> list[str]:
    """The lines of the printed table."""
    text = cli("sweep", "show", str(directory)).out
    return text[: text.index(" jobs done")].splitlines()[:-1]


def check_equal(cli: Cli, directory: Path, straight: Path) -> None:
    """Compare weights, metrics and table with a sweep that was not interrupted."""
    assert results_of(directory) == results_of(straight)
    assert group_lines(cli, directory) == group_lines(cli, straight)
    assert index_of(directory)["state"] == "done"


def test_a_process_that_holds_a_sweep_still_holds_it_after_it_is_reconciled(tmp_path: Path) -> None:
    """The system releases a lock as soon as its process closes the locked file, also after only reading it."""
    other = "import sys, pathlib; from loopwright.run_lock import hold; hold(pathlib.Path(sys.argv[1])).__enter__()"
    index = small_sweeps.swept([{"optimizer.lr": 0.1}], [[0.5]])
    with hold(tmp_path):
        assert not has_other_runner(tmp_path)
        reconciled(tmp_path, index)
        assert is_locked(tmp_path)
        command = [sys.executable, "-c", other, str(tmp_path)]
        ended = subprocess.run(command, env=environment(), capture_output=True, text=True)
        assert ended.returncode == 1 and f"in use by process {os.getpid()}" in ended.stderr
    assert subprocess.run(command, env=environment(), check=False).returncode == 0


@pytest.mark.parametrize(
    ("how", "code", "resumed_from"),
    [
        ("terminate", 143, "step_00000003"),
        pytest.param("interrupt", 130, "step_00000003", marks=pytest.mark.slow),
        pytest.param("interrupt_twice", 130, "step_00000002", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_an_interrupted_sweep_ends_like_a_straight_one(
    cli: Cli, sweep: Cli, straight: Path, tmp_path: Path, how: str, code: int, resumed_from: str
) -> None:
    (tmp_path / f"{how}-1").touch()
    answer = sweep()
    assert (answer.code, states_of(tmp_path / "s")) == (code, ["done", "interrupted", "pending", "pending"])
    assert answer.out.endswith("\nResume: loopwright sweep resume --trust=told s\n")
    waiting = tmp_path / "s" / "3"
    assert {path.name for path in waiting.iterdir()} == {"config.yaml", ".hydra"}
    assert "seed=1" in (waiting / ".hydra" / "overrides.yaml").read_text()
    recorded = {path.parent.name: path.read_bytes() for path in (tmp_path / "s").glob("*/config.yaml")}
    for file in (tmp_path / "conf").rglob("*.yaml"):
        file.write_text("wrong: [")
    resumed = cli(*RESUME)
    assert (resumed.code, resumed.err) == (0, "")
    check_equal(cli, tmp_path / "s", straight)
    jobs = index_of(tmp_path / "s")["jobs"]
    ends = [[(attempt["end"], attempt["resumed_from"]) for attempt in job["attempts"]] for job in jobs]
    once = [("completed", None)]
    assert ends == [once, [("interrupted", None), ("completed", resumed_from)], once, once]
    assert recorded == {path.parent.name: path.read_bytes() for path in (tmp_path / "s").glob("*/config.yaml")}
    again = cli(*RESUME)
    assert (again.code, again.out.splitlines()[-1]) == (0, "Nothing is left to do.")


@pytest.mark.slow
def test_jobs_of_a_killed_runner_are_completed(cli: Cli, swept: Path, straight: Path) -> None:
    as_killed(swept, 1, keeps=1)
    as_killed(swept, 3)
    stale = (swept / "sweep.json").read_bytes()
    shown = json.loads(cli("sweep", "show", "s", "format=json").out)
    found = [(job["state"], job["attempts"][-1]["end"]) for job in shown["jobs"]]
    assert found == [("done", "completed"), ("interrupted", "lost"), ("done", "completed"), ("pending", "lost")]
    assert (swept / "sweep.json").read_bytes() == stale
    assert cli(*RESUME).code == 0
    check_equal(cli, swept, straight)
    jobs = index_of(swept)["jobs"]
    assert [len(job["attempts"]) for job in jobs] == [1, 2, 1, 2]
    assert jobs[1]["attempts"][-1]["resumed_from"] == "step_00000002"
    assert (swept / "3.attempt1" / "summary.json").exists() and not (swept / "1.attempt1").exists()


def test_a_job_that_was_killed_twice_at_one_point_has_failed(cli: Cli, swept: Path) -> None:
    as_killed(swept, 3)
    lost = {"end": "lost", "ended": "2026-11-30T10:02:11+00:00"}
    change_index(
        swept, lambda index: index["jobs"][3]["attempts"].insert(0, {**index["jobs"][3]["attempts"][0], **lost})
    )
    answer = cli("sweep", "show", "s")
    line = "job 3 failed: the process was killed, or the machine was switched off (3/run.log)"
    assert line in answer.out.splitlines()
    resumed = cli(*RESUME)
    assert (resumed.code, resumed.out.splitlines()[-1]) == (1, "Nothing is left to do.")


def test_a_job_that_was_carried_out_by_hand_counts(cli: Cli, swept: Path, straight: Path) -> None:
    as_killed(swept, 0, keeps=1)
    as_killed(swept, 2)
    assert cli("--trust=told", "resume", "s/0").code == 0
    assert cli("--trust=told", "sweep", "job", "s", "2").code == 0
    assert [job["state"] for job in json.loads(cli("sweep", "show", "s", "format=json").out)["jobs"]] == ["done"] * 4
    resumed = cli(*RESUME)
    assert (resumed.code, resumed.out.splitlines()[-1]) == (0, "Nothing is left to do.")
    shown = json.loads(cli("sweep", "show", "s", "format=json").out)["jobs"]
    assert [job["weights_sha256"] for job in shown] == [job["weights_sha256"] for job in index_of(straight)["jobs"]]


def test_two_processes_do_not_run_one_sweep(cli: Cli, swept: Path, locked: Lock) -> None:
    as_killed(swept, 3)
    stale = (swept / "sweep.json").read_bytes()
    holder = "s: in use by process 4711 on there, since noon; wait until it ends.\n"
    with locked(swept):
        for words in (RESUME, ("sweep", "retry", "s"), ("sweep", "add", "s", "seed=2")):
            answer = cli(*words)
            assert (answer.code, answer.out, answer.err) == (3, "", holder)
        shown = json.loads(cli("sweep", "show", "s", "format=json").out)
        assert shown["jobs"][3]["state"] == "running"  # the runner knows better
        stopped = cli("sweep", "stop", "s", "jobs=3")
        said = "Job 3 saves and ends. To see the sweep: loopwright sweep show s\n"
        assert (stopped.code, stopped.out) == (0, said)
    assert json.loads((swept / "stop.json").read_text()) == {"jobs": [3]}
    assert (swept / "sweep.json").read_bytes() == stale


@pytest.mark.slow
def test_stop_without_a_runner_leaves_a_file_for_each_running_job(cli: Cli, swept: Path, locked: Lock) -> None:
    as_killed(swept, 2)
    with locked(swept / "2"):
        assert json.loads(cli("sweep", "show", "s", "format=json").out)["jobs"][2]["state"] == "running"
        answer = cli("sweep", "stop", "s")
        assert (answer.code, answer.out) == (0, "1 running job ends at its next log step or validation.\n")
    assert [path.parent.name for path in swept.glob("*/stop")] == ["2"]
    answer = cli("sweep", "stop", "s")
    assert (answer.code, answer.out) == (0, "No job of this sweep is running.\n")
    assert cli(*RESUME).code == 0
    assert states_of(swept) == ["done"] * 4 and not list(swept.glob("*/stop"))


def test_reconciling_twice_changes_nothing_more(swept: Path) -> None:
    as_killed(swept, 2, keeps=1)
    as_killed(swept, 3)
    once = reconciled(swept, read_index(swept))
    assert reconciled(swept, once) == once
    assert once.best is not None and once.best.group == 0


SUMMARIES: list[tuple[dict[str, Any], int | None, str, str, str | None]] = [
    ({"state": "completed"}, 0, "done", "completed", None),
    ({"state": "completed"}, 143, "done", "completed", None),
    ({"state": "stopped", "stop": {"by": "early_stopping"}}, 0, "done", "stopped", None),
    ({"state": "stopped", "stop": {"by": "pruner"}}, 0, "pruned", "stopped", None),
    ({"state": "stopped", "stop": "pruner"}, 0, "done", "stopped", None),
    ({"state": "failed", "error": "E: x"}, 1, "failed", "raised", "E: x"),
    ({"state": "failed", "error": 5}, 1, "failed", "raised", "exit code 1"),
    ({"state": "interrupted"}, 143, "pending", "interrupted", None),
    ({"state": "interrupted"}, 130, "pending", "interrupted", None),
    ({"state": "running"}, -9, "failed", "killed by SIGKILL", "killed by SIGKILL"),
    ({"state": "running"}, 130, "pending", "interrupted", None),
    ({"state": "running"}, 1, "failed", "ended with exit code 1", "ended with exit code 1"),
    ({}, 2, "failed", "raised", "exit code 2"),
]


@pytest.mark.parametrize(("summary", "exit_code", "state", "end", "error"), SUMMARIES)
def test_an_ended_job_has_the_state_of_its_summary(
    tmp_path: Path, summary: dict[str, Any], exit_code: int | None, state: str, end: str, error: str | None
) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    entry = small_sweeps.swept([{}], [["running"]]).jobs[0]
    found = ended_entry(tmp_path, entry, exit_code)
    assert (found.state, found.error) == (state, error)
    assert (found.attempts[-1].end, found.attempts[-1].exit_code) == (end, exit_code)
    late = ended_entry(tmp_path, entry, exit_code, end="out of time")
    assert late.state == (state if summary.get("state") in ("completed", "stopped") else "failed")


def test_the_last_output_explains_a_death(tmp_path: Path) -> None:
    (tmp_path / "output.log").write_text("first\nmalloc(): corrupted\x1b[2J top size\n\n")
    entry = JobEntry(number=0, group=0, seed=0, overrides=(), directory="0", config_sha256="")
    found = ended_entry(tmp_path, replace(entry, attempts=(Attempt(started="", host="", where=""),)), -6)
    assert found.error is not None and found.error.startswith("killed by SIGABRT; last output: malloc(): corrupted")
    assert "\x1b" not in found.error


def test_the_newest_checkpoint_has_a_manifest(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for name, is_whole in (("step_00000009", True), ("step_00000010", True), ("step_00000011", False), ("best", True)):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        if is_whole:
            (tmp_path / "checkpoints" / name / "manifest.json").touch()
    assert newest_checkpoint(tmp_path) == "step_00000010"
