"""``loopwright resume DIR`` completes the plan with the recorded configuration, in the same directory."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import Answer, run_in, small_run
from loopwright.callbacks import LearningRateMonitor
from loopwright.errors import CheckpointError, SaveError
from loopwright.run_lock import hold

Cli = Callable[..., Answer]

LENGTH = ("loop.max_steps=12", "checkpoint.every_n_steps=5", "loop.eval_frequency=3", "log_every_n_steps=2")
LOGGERS = ("loggers=[json_lines,csv]",)


def summary(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / "summary.json").read_text())
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def interrupted_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A directory with two runs, and the command's answer to the first.

    A signal ended the run in ``cut`` in step 7. The run in ``straight`` is the same without a signal.
    """
    root = tmp_path_factory.mktemp("interrupted")
    answers = []
    for name, on_batch_end in (("cut", _interrupt_in_step_7), ("straight", lambda *_: None)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LearningRateMonitor, "on_train_batch_end", on_batch_end)
            answers.append(run_in(root, *small_run(f"hydra.run.dir={name}", *LENGTH, *LOGGERS)))
    return root, answers[0]


@pytest.fixture
def interrupted(interrupted_once: tuple[Path, Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Return the answer to the run in ``cut``; copies of ``cut`` and ``straight`` are in the current directory."""
    root, answer = interrupted_once
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(LearningRateMonitor, "on_train_batch_end", lambda *_: None)
    return answer


def _interrupt_in_step_7(callback: Any, trainer: Any, *_: Any) -> None:
    if trainer.global_step == 7:
        signal.raise_signal(signal.SIGTERM)


def test_an_interrupted_run_prints_the_command_to_resume(interrupted: Answer, tmp_path: Path) -> None:
    assert interrupted.code == 143
    assert interrupted.err == "interrupted by SIGTERM at global_step 7 (run directory: cut)\n"
    assert "nterrupted" not in interrupted.out
    assert interrupted.out.endswith("Resume it: loopwright resume cut\nValidate it: loopwright validate cut\n")
    found = summary(tmp_path / "cut")
    assert (found["state"], found["exit_code"], found["global_step"]) == ("interrupted", 143, 7)


def test_a_resumed_run_equals_an_uninterrupted_one(interrupted: Answer, cli: Cli, tmp_path: Path) -> None:
    answer = cli("resume", "cut")
    assert (answer.code, answer.err) == (0, "")
    cut, straight = tmp_path / "cut", tmp_path / "straight"
    for name in ("metrics.jsonl", "metrics.csv", "plan.txt", "plan.json", "config.yaml"):
        assert (cut / name).read_text() == (straight / name).read_text(), name
    ours, theirs = summary(cut), summary(straight)
    for key in ("state", "global_step", "metrics", "best", "objective", "weights_sha256", "data", "exit_code"):
        assert ours[key] == theirs[key], key
    assert ours["resumes"] == [{"checkpoint": "step_00000007", "differences": []}]
    assert (cut / "command.txt").read_text().splitlines()[1:] == ["loopwright resume cut"]
    log = (cut / "run.log").read_text()
    assert "INFO interrupted by SIGTERM at global_step 7\n" in log
    assert "INFO resumed from cut/checkpoints/step_00000007\n" in log


def test_a_completed_run_is_reported_as_completed(interrupted: Answer, cli: Cli, tmp_path: Path) -> None:
    before = summary(tmp_path / "straight")
    answer = cli("resume", "straight")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == (
        "straight: completed at global_step 12; nothing is left to do. "
        "To train it for longer: loopwright resume straight loop.max_steps=24\n"
    )
    assert summary(tmp_path / "straight") == before


def test_a_later_end_is_recorded(interrupted: Answer, small: Cli, cli: Cli, tmp_path: Path) -> None:
    answer = cli("resume", "straight", "loop.max_steps=15")
    assert answer.code == 0, answer.err
    assert "global_step 12 -> 15" in answer.err
    assert yaml.safe_load((tmp_path / "straight" / "config.yaml").read_text())["loop"]["max_steps"] == 15
    assert summary(tmp_path / "straight")["global_step"] == 15
    assert cli("resume", "straight").out.startswith("straight: completed at global_step 15;")
    steps = [json.loads(line)["step"] for line in (tmp_path / "straight" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps.count(14) == steps.count(2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=3"], "resume: a resumed run keeps its settings (seed: 0 recorded, 3 now); to train for longer, use "),
        (
            ["optimizer.lr=1", "model.hidden=[9]"],
            "(model.hidden: [4] recorded, [9] now; optimizer.lr: 0.003 recorded, 1 ",
        ),
        (["loop.max_steps=6"], "an earlier end, global_step 12 -> 6"),
        (["loop.max_stepz=30"], "loop.max_stepz=30: no such key. Did you mean loop.max_steps?"),
        (["loop.max_steps=abc"], "loop.max_steps='abc': expected a whole number or null"),
        (["model=cnn"], "model=cnn: a recorded run keeps its option of model; "),
    ],
)
def test_changes_other_than_a_later_end_are_refused(
    words: list[str], said: str, interrupted: Answer, cli: Cli, tmp_path: Path
) -> None:
    before = summary(tmp_path / "cut")
    answer = cli("resume", "cut", *words)
    assert answer.code == 2
    assert said in answer.err and answer.err.count("\n") == 1
    assert summary(tmp_path / "cut") == before


def test_the_number_of_workers_may_be_set(interrupted: Answer, cli: Cli, tmp_path: Path) -> None:
    assert cli("resume", "cut", "data.num_workers=1").code == 0
    assert summary(tmp_path / "cut")["weights_sha256"] == summary(tmp_path / "straight")["weights_sha256"]


def test_a_damaged_checkpoint_is_skipped_and_a_run_without_a_valid_one_gives_exit_code_3(
    interrupted: Answer, cli: Cli, tmp_path: Path
) -> None:
    folders = sorted((tmp_path / "cut" / "checkpoints").iterdir(), reverse=True)
    assert [folder.name for folder in folders] == [f"step_0000000{step}" for step in (7, 6, 5)]
    for number, folder in enumerate(folders):
        with (folder / "model.safetensors").open("r+b") as file:
            file.truncate(100)
        if number == 0:
            shutil.copytree(tmp_path / "cut", tmp_path / "back")
            answer = cli("resume", "back")
            assert answer.code == 0
            assert "step_00000007: model.safetensors: " in answer.err
            assert answer.err.count("\n") == 1
            assert (tmp_path / "back/metrics.jsonl").read_text() == (tmp_path / "straight/metrics.jsonl").read_text()
    answer = cli("resume", "cut")
    assert answer.code == 3
    assert all(folder.name in answer.err for folder in folders) and answer.err.count("\n") == 1
    assert summary(tmp_path / "cut")["state"] == "interrupted"


def test_a_directory_without_a_run_is_refused(cli: Cli, recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert cli("resume").err == "resume: expected a run directory; use loopwright resume DIR.\n"
    assert cli("resume", "none").err == "none: no such folder; expected a run directory.\n"
    assert cli("resume", "empty").err == "empty: expected a run directory with a regular file config.yaml.\n"
    assert list((tmp_path / "empty").iterdir()) == []
    shutil.rmtree(recorded / "checkpoints")
    (recorded / "summary.json").unlink()
    answer = cli("resume", "run")
    assert (answer.code, answer.err) == (
        3,
        "run: the run ended before its first checkpoint; start a new run.\n",
    )


def test_other_data_are_refused(cli: Cli, recorded: Path, tmp_path: Path) -> None:
    found = summary(recorded)
    found |= {"state": "running", "data": {"num_train": 3}}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(found))
    files = {name: (tmp_path / "run" / name).read_text() for name in ("summary.json", "config.yaml", "command.txt")}
    for _ in range(2):  # a refused resume changes nothing, so it is refused again
        answer = cli("resume", "run", "loop.max_steps=50")
        assert answer.code == 2
        said = (
            "data: not the data that the run read (data.num_train: 3 recorded, not set now); a resumed run keeps its "
            "data; to begin a new run with its weights, use init_from.\n"
        )
        assert answer.err == said
        assert {name: (tmp_path / "run" / name).read_text() for name in files} == files


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_summary_is_reported(text: str, interrupted: Answer, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cut" / "summary.json").write_text(text)
    (tmp_path / "cut" / ".summary.json-123").write_text("half")  # left by a killed process
    answer = cli("resume", "cut")
    assert answer.code == 0
    assert "cut/summary.json: cannot be read; the data are not compared with the recorded data." in answer.err
    assert summary(tmp_path / "cut")["state"] == "completed"
    assert not (tmp_path / "cut" / ".summary.json-123").exists()


def test_a_wrong_value_is_refused_for_a_completed_run_too(cli: Cli, recorded: Path) -> None:
    assert cli("resume", "run").code == 0
    assert cli("resume", "run", "data.num_workers=-1").code == 2
    assert cli("resume", "run", "checkpoint.keep_last=0").code == 2


def test_another_environment_is_reported_and_recorded(interrupted: Answer, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "cut" / "environment.json"
    changed = {"torch": "2.11.0", "num_threads": 1, "source": {"loopwright": "0" * 64}}
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    answer = cli("resume", "cut")
    assert answer.code == 0
    assert f"source.loopwright: {'0' * 64} -> " in answer.err
    assert "Resumed in another environment, so the results may differ: torch: 2.11.0 -> " in answer.err
    assert summary(tmp_path / "cut")["resumes"][0]["differences"][0].startswith("torch: 2.11.0 -> ")


def test_a_run_that_another_process_holds_gives_exit_code_3(interrupted: Answer, cli: Cli, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "cut", ready, done))
    holder.start()
    assert ready.wait(60)
    answer = cli("resume", "cut")
    done.set()
    holder.join()
    assert answer.code == 3
    assert answer.err.startswith(f"cut: in use by process {holder.pid} on ")
    assert answer.err.count("\n") == 1
    assert cli("resume", "cut").code == 0


def _hold(directory: Path, ready: Any, done: Any) -> None:
    with hold(directory):
        ready.set()
        done.wait(60)


@pytest.mark.slow
def test_the_lock_of_a_killed_process_does_not_block(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(20):
        ready, done = context.Event(), context.Event()
        holder = context.Process(target=_hold, args=(tmp_path, ready, done))
        holder.start()
        assert ready.wait(60)
        with pytest.raises(CheckpointError, match=f"process {holder.pid} on"), hold(tmp_path):
            raise AssertionError
        os.kill(holder.pid or 0, signal.SIGKILL)
        holder.join()
        with hold(tmp_path):
            pass


def test_a_link_instead_of_the_lock_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SaveError, match=r"run/\.lock: cannot be written"), hold(tmp_path / "run"):
        raise AssertionError
    assert (tmp_path / "elsewhere").read_text() == "kept"


def test_a_file_system_without_locks_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with hold(tmp_path):
        assert "cannot be locked (Operation not supported)" in caplog.text
