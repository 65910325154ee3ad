"""Jobs that failed: what a sweep says and skips, and from where ``sweep retry`` runs them again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer
from loopwright.errors import CheckpointError, SaveError
from loopwright.experiment.sweep import runner
from loopwright.experiment.sweep.attempts import has_begun, set_aside
from sweeps import as_failed, as_killed, index_of, results_of, states_of

pytestmark = pytest.mark.slow

Cli = Callable[..., Answer]
TRUSTED = ("--trust=told", "sweep")
ERROR = "ValueError: told to. Raised in callback told.on_train_batch_end."


def test_after_a_failure_the_rest_is_skipped_resumed_and_retried(
    cli: Cli, sweep: Cli, straight: Path, tmp_path: Path
) -> None:
    (tmp_path / "raise-0").touch()
    answer = sweep("sweep.on_failure=stop")
    line = f"job 0 failed: {ERROR} (0/run.log)"
    assert (answer.code, answer.err.splitlines()) == (1, [line])
    assert answer.out.count(ERROR) == 2  # in the line of the job, and below the table
    assert (states_of(tmp_path / "s"), index_of(tmp_path / "s")["state"]) == (["failed", *["skipped"] * 3], "failed")
    assert "Traceback (most recent call last)" in (tmp_path / "s" / "0" / "run.log").read_text()
    resumed = cli(*TRUSTED, "resume", "s")
    assert (resumed.code, states_of(tmp_path / "s")) == (1, ["failed", "done", "done", "done"])
    assert resumed.out.splitlines()[-1] == "Retry what failed: loopwright sweep retry --trust=told s"
    retried = cli(*TRUSTED, "retry", "s", "from=checkpoint")
    assert (retried.code, retried.err) == (0, "")
    assert results_of(tmp_path / "s") == results_of(straight)
    assert [attempt["end"] for attempt in index_of(tmp_path / "s")["jobs"][0]["attempts"]] == ["raised", "completed"]


def test_a_job_in_this_process_ends_at_its_time_limit(
    cli: Cli, sweep: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_WATCH_SECONDS", 0.01)
    answer = sweep("optimizer.lr=0.1", "seed=0", "loop.max_steps=10_000_000", "sweep.timeout_minutes=0.05")
    error = "out of time: took more than 0.05 minutes"  # the fit has begun by then
    assert (answer.code, answer.err.splitlines()[-1]) == (1, f"job 0 failed: {error} (0/run.log)")
    job = index_of(tmp_path / "s")["jobs"][0]
    assert (job["state"], job["error"], job["attempts"][0]["end"]) == ("failed", error, error)
    assert job["attempts"][0]["exit_code"] == 143


def test_only_the_named_jobs_are_retried_from_the_start(cli: Cli, swept: Path, straight: Path) -> None:
    for number in (0, 2, 3):
        as_failed(swept, number, keeps=1)
    answer = cli(*TRUSTED, "retry", "s", "jobs=2-3")
    assert (answer.code, states_of(swept)) == (1, ["failed", "done", "done", "done"])
    assert sorted(path.name for path in swept.glob("*.attempt*")) == ["2.attempt1", "3.attempt1"]
    assert [path.name for path in (swept / "2.attempt1" / "checkpoints").iterdir()] == ["step_00000002"]
    assert (swept / "2.attempt1" / "config.yaml").read_bytes() == (swept / "2" / "config.yaml").read_bytes()
    assert results_of(swept)[1:] == results_of(straight)[1:]
    last = index_of(swept)["jobs"][2]["attempts"][-1]
    assert (last["end"], last["resumed_from"]) == ("completed", None)


@pytest.mark.parametrize(
    ("failure", "option", "resumed_from"),
    [
        ({"keeps": 1, "end": "killed by SIGKILL", "error": "killed by SIGKILL"}, [], "step_00000002"),
        ({"keeps": 1, "end": "lost", "error": "the process was killed"}, ["from=start"], None),
        ({"keeps": 0, "end": "out of time"}, [], None),
        ({"keeps": 2, "error": "SaveError: 0/checkpoints: No space left on device"}, [], "step_00000004"),
    ],
)
def test_the_cause_decides_where_a_retry_begins(
    cli: Cli, swept: Path, straight: Path, failure: dict[str, object], option: list[str], resumed_from: str | None
) -> None:
    as_failed(swept, 1, **failure)  # type: ignore[arg-type]
    assert cli(*TRUSTED, "retry", "s", *option).code == 0
    assert results_of(swept) == results_of(straight)
    assert index_of(swept)["jobs"][1]["attempts"][-1]["resumed_from"] == resumed_from
    assert (swept / "1.attempt1").exists() == (resumed_from is None)


def test_a_retry_that_is_refused_changes_nothing(cli: Cli, swept: Path) -> None:
    as_failed(swept, 1)
    as_killed(swept, 3)
    before = {path: path.stat().st_mtime_ns for path in swept.rglob("*") if path.name != ".lock"}

    def refused(*options: str) -> tuple[int, str]:
        answer = cli(*TRUSTED, "retry", "s", *options)
        assert answer.out == ""
        return answer.code, answer.err

    assert refused("jobs=0") == (2, "jobs=0: this job is done; sweep retry runs failed jobs.\n")
    assert refused("jobs=1,3") == (2, "jobs=3: this job is pending; sweep retry runs failed jobs.\n")
    assert refused("from=checkpoint") == (2, "from=checkpoint: job 1 has no checkpoint; use from=start.\n")
    assert refused("from=end") == (2, "from='end': expected start or checkpoint.\n")
    assert refused("seed=3") == (2, "seed=3: no such option. Available: jobs, from.\n")
    slots = "sweep.devices=[0]: expected auto with jobs on cpu.\n"
    assert refused("sweep.devices=[0]", "sweep.launcher=process") == (2, slots)
    (swept / "1" / "config.yaml").write_text("seed: 3\n")
    changed = "s/1/config.yaml: was changed after the sweep began; restore it, or start a new sweep.\n"
    assert refused() == (3, changed)
    (swept / "1" / "config.yaml").unlink()
    assert refused() == (3, "s/1: expected a directory with the config.yaml of job 1.\n")
    left = {path: path.stat().st_mtime_ns for path in swept.rglob("*") if path.name != ".lock"}
    assert {path.name for path in before.keys() ^ left.keys()} == {"config.yaml"}


def test_a_directory_is_set_aside_under_the_next_free_number(tmp_path: Path) -> None:
    directory = tmp_path / "3"
    (directory / ".hydra").mkdir(parents=True)
    (directory / "config.yaml").write_text("seed: 0\n")
    (directory / ".hydra" / "overrides.yaml").write_text("- seed=0\n")
    assert not has_begun(directory)
    (tmp_path / "3.new").mkdir()  # left by a process that was killed
    for number in (1, 2, 3):
        (directory / "summary.json").write_text(json.dumps({"number": number}))
        assert has_begun(directory)
        assert set_aside(directory) == tmp_path / f"3.attempt{number}"
        assert {path.name for path in directory.iterdir()} - {".lock"} == {"config.yaml", ".hydra"}
        assert (directory / ".hydra" / "overrides.yaml").read_text() == "- seed=0\n"
    for number in (1, 2, 3):
        kept = json.loads((tmp_path / f"3.attempt{number}" / "summary.json").read_text())
        assert kept == {"number": number}


def test_a_directory_in_use_is_not_set_aside(tmp_path: Path, locked: Callable[..., object]) -> None:
    (tmp_path / "3").mkdir()
    with locked(tmp_path / "3"), pytest.raises(CheckpointError, match="in use by process 4711"):  # type: ignore[attr-defined]
        set_aside(tmp_path / "3")
    with pytest.raises(SaveError):
        set_aside(tmp_path / "4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3"]


def test_a_retry_says_that_the_source_has_changed(cli: Cli, swept: Path) -> None:
    as_failed(swept, 1)
    environment = swept / "1" / "environment.json"
    environment.write_text(json.dumps({**json.loads(environment.read_text()), "source": {"loopwright": "0" * 64}}))
    answer = cli(*TRUSTED, "retry", "s")
    assert answer.code == 0
    assert "The source has changed since these jobs ran: loopwright." in answer.out
    as_failed(swept, 1)
    assert "The source has changed" not in cli(*TRUSTED, "retry", "s").out
