"""A run that a callback stops is recorded as stopped, counts as complete, and says how a resume continues it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import Answer, run_in, small_run

Cli = Callable[..., Answer]

EARLY = (
    "callbacks=[default,early_stopping]",
    "callbacks.early_stopping.patience=2",
    "callbacks.early_stopping.min_delta=1000",  # so the first validation, at step 2, is the best
    "loop.max_steps=20",
    "log_every_n_steps=2",
)

MODULE = """
from loopwright import Callback
class Ends(Callback):
    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        if trainer.global_step == 3: trainer.stop("enough")
"""
OWN = ("--trust", "ends_early", "+callbacks.ends._target_=ends_early.Ends")


def summary(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / "summary.json").read_text())
    assert isinstance(found, dict)
    return found


def files(directory: Path) -> dict[str, bytes]:
    """The content of the files that a resume without work must not change."""
    kept = ("summary.json", "config.yaml", "command.txt", "metrics.jsonl", "plan.txt")
    return {name: (directory / name).read_bytes() for name in kept}


@pytest.fixture
def early(cli: Cli, tmp_path: Path) -> Answer:
    """The answer to a run in ``es`` that early stopping ends after step 6. The step is saved before its validation."""
    return run_in(tmp_path, *small_run("hydra.run.dir=es", *EARLY))


@pytest.fixture
def ended(cli: Cli, tmp_path: Path) -> Answer:
    """The answer to a run in ``own`` that a callback without a state ends after step 3."""
    (tmp_path / "ends_early.py").write_text(MODULE)
    return run_in(tmp_path, *small_run("hydra.run.dir=own", *OWN))


def test_the_state_and_the_reason_are_recorded_and_printed(early: Answer, tmp_path: Path) -> None:
    found = summary(tmp_path / "es")
    assert (early.code, found["state"], found["exit_code"], found["error"]) == (0, "stopped", 0, None)
    assert found["stop"].keys() == {"by", "reason"} and found["stop"]["by"] == "early_stopping"
    assert early.out.startswith("Done: stopped by early_stopping at global_step 6 after ")
    assert f" s: {found['stop']['reason']}.\n" in early.out
    assert "To continue: loopwright resume es callbacks.early_stopping.patience=4\n" in early.out


def test_a_run_that_no_callback_stops_has_no_stop(recorded: Path) -> None:
    assert (summary(recorded)["state"], summary(recorded)["stop"]) == ("completed", None)


@pytest.mark.parametrize("words", [[], ["loop.max_steps=800"], ["callbacks.early_stopping.patience=1"]])
def test_a_resume_that_trains_nothing_says_so_and_changes_nothing(
    words: list[str], early: Answer, cli: Cli, tmp_path: Path
) -> None:
    before = files(tmp_path / "es")
    answer = cli("resume", "es", *words)
    reason = summary(tmp_path / "es")["stop"]["reason"]
    assert answer.code == 0
    assert answer.err == (
        f"Nothing to train: early_stopping stopped this run at step 6 ({reason}). "
        "To continue, resume with patience=4 in early_stopping.\n"
    )
    assert "Plan:" not in answer.out
    assert "Done: trained nothing; the run was stopped by early_stopping at global_step 6.\n" in answer.out
    again = [word for word in words if "patience" not in word]
    command = " ".join(["loopwright resume es callbacks.early_stopping.patience=4", *again])
    assert f"\nTo continue: {command}\n" in answer.out
    assert files(tmp_path / "es") == before


def test_a_resume_with_the_patience_in_the_message_trains(early: Answer, cli: Cli, small: Cli, tmp_path: Path) -> None:
    answer = cli("resume", "es", "callbacks.early_stopping.patience=4")
    assert answer.code == 0, answer.err
    patient = [word.replace("patience=2", "patience=4") for word in EARLY]
    assert small("hydra.run.dir=straight", *patient).code == 0
    ours, theirs = summary(tmp_path / "es"), summary(tmp_path / "straight")
    assert ours["global_step"] == theirs["global_step"] == 10
    assert ours["weights_sha256"] == theirs["weights_sha256"]
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("es", "straight")]
    assert metrics[0] == metrics[1]
    assert (ours["state"], ours["stop"]) == ("stopped", theirs["stop"])


@pytest.mark.slow
def test_early_stopping_has_any_name(cli: Cli, small: Cli, tmp_path: Path) -> None:
    target = "{_target_: loopwright.callbacks.EarlyStopping, patience: 1, min_delta: 1000}"
    assert small("hydra.run.dir=es", f"+callbacks.enough={target}", "loop.max_steps=20").code == 0
    assert summary(tmp_path / "es")["stop"]["by"] == "enough"
    assert "resume es callbacks.enough.patience=2\n" in cli("resume", "es").out
    assert cli("resume", "es", "callbacks.enough.patience=2").code == 0
    assert summary(tmp_path / "es")["global_step"] == 6


@pytest.mark.slow
def test_a_metric_that_is_worse_than_the_threshold_offers_no_patience(cli: Cli, small: Cli) -> None:
    worse = "callbacks.early_stopping.divergence_threshold=-1"
    answer = small("hydra.run.dir=es", *EARLY, worse)
    assert "worse than divergence_threshold=-1" in answer.out and "To continue" not in answer.out
    answer = cli("resume", "es")
    assert answer.err.endswith("A resume cannot train further; init_from starts a new run with the weights.\n")
    assert "To continue" not in answer.out


def test_a_callback_without_a_state_decides_again(ended: Answer, cli: Cli, tmp_path: Path) -> None:
    assert summary(tmp_path / "own")["stop"] == {"by": "ends", "reason": "enough"}
    before = files(tmp_path / "own")
    answer = cli("resume", "--trust", "ends_early", "own")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == (
        "own: stopped by ends at global_step 3 (enough); nothing is left to do. ends decides whether a resume trains "
        "further.\n"
    )
    assert files(tmp_path / "own") == before
    assert cli("resume", "--trust", "ends_early", "own", "loop.max_steps=4").code == 0  # the recorded end
    found = summary(tmp_path / "own")
    assert (found["state"], found["stop"], found["global_step"]) == ("completed", None, 4)


@pytest.mark.slow
def test_a_stopped_run_counts_as_complete(ended: Answer, small: Cli, cli: Cli) -> None:
    answer = small("-m", *OWN, "hydra.sweep.dir=sweep", "seed=0,1")
    assert answer.code == 0
    assert "2 of 2 jobs done, in 0:" in answer.out
    answer = cli("reproduce", "own", "--trust", "ends_early")
    assert answer.code == 0 and "and the weights are bitwise equal." in answer.out
    assert cli("validate", "own", "--trust", "ends_early").code == 0


def test_a_time_limit_is_recorded_as_the_cause_of_an_interruption(small: Cli, tmp_path: Path) -> None:
    limit = ("callbacks=[default,time_limit]", "callbacks.time_limit.minutes=0.000001")
    assert small("hydra.run.dir=limited", *limit).code == 143
    found = summary(tmp_path / "limited")
    assert found["state"] == "interrupted"
    assert found["stop"] == {"by": "time_limit", "reason": "the time limit of 1e-06 minutes"}


@pytest.mark.parametrize("stop", ["text", {"by": 3}, {"by": "a" * 500 + "\n"}, [], None])
def test_an_invalid_record_of_the_stop_does_no_harm(stop: object, ended: Answer, cli: Cli, tmp_path: Path) -> None:
    changed = summary(tmp_path / "own") | {"stop": stop}
    (tmp_path / "own" / "summary.json").write_text(json.dumps(changed))
    answer = cli("resume", "--trust", "ends_early", "own")
    assert (answer.code, answer.err, answer.out.count("\n")) == (0, "", 1)
    assert answer.out.startswith("own: stopped") and len(answer.out) < 400


def test_a_run_that_was_killed_before_its_end_was_recorded_is_recorded_as_stopped(
    early: Answer, cli: Cli, tmp_path: Path
) -> None:
    before = summary(tmp_path / "es")
    (tmp_path / "es" / "summary.json").write_text(json.dumps(before | {"state": "running", "stop": None}))
    assert cli("resume", "es").code == 0
    found = summary(tmp_path / "es")
    for name in ("state", "stop", "metrics", "best", "objective", "weights_sha256"):
        assert found[name] == before[name], name


def test_a_resume_that_only_validates_and_is_then_stopped_says_why(small: Cli, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "fails_once.py").write_text(
        "import pathlib\n"
        "from loopwright import Callback\n"
        "class Fails(Callback):\n"
        "    def on_enter_validate_all(self, trainer, *_):\n"
        "        if trainer.global_step == 6 and not pathlib.Path('failed').exists():\n"
        "            pathlib.Path('failed').touch()\n"
        "            raise RuntimeError('killed')\n"
    )
    own = ("--trust", "fails_once", "+callbacks.fails._target_=fails_once.Fails")
    assert small("hydra.run.dir=es", *EARLY, *own).code == 1
    answer = cli("resume", "--trust", "fails_once", "es")
    assert (answer.code, answer.err) == (0, "")
    stop = summary(tmp_path / "es")["stop"]
    assert "Done: stopped by early_stopping at global_step 6 after " in answer.out and stop["reason"] in answer.out
