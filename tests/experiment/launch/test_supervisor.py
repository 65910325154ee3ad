"""A crashed run is restarted as long as it makes progress; a refused or interrupted run is not restarted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import faulty
from command import SMALL, Answer, is_group_gone, run_dirs, run_process

Cli = Callable[..., Answer]

WORDS = ("--config-dir=conf", "--trust=faulty", "callbacks=[default,dying]", "max_restarts=1")
ENDLESS = ("loop.max_steps=10000000", "loop.eval_frequency=null")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    faulty.write_configs(tmp_path / "conf")
    return tmp_path


def command(here: Path, *words: str) -> Answer:
    """Run a supervised command, check that none of its processes is left, and return its answer."""
    keys = {word.split("=")[0] for word in words}
    rest = [word for word in (*SMALL, *WORDS) if word.split("=")[0] not in keys]
    process_id, answer = run_process(here, *words, *rest)
    assert is_group_gone(process_id)
    return answer


def summary(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return found


def restarts(answer: Answer) -> list[str]:
    return [line for line in answer.err.splitlines() if "; restart " in line]


@pytest.mark.slow
def test_a_run_that_fails_at_the_same_step_is_restarted_up_to_the_limit(here: Path) -> None:
    answer = command(here, "callbacks.dying.steps=[-3]", "hydra.run.dir=out")
    failed = "ValueError: told to. Raised in callback dying.on_train_batch_end."
    assert (answer.code, answer.err.splitlines()) == (
        1,
        [
            f"{failed} (traceback in out/run.log)",
            "out: failed after the checkpoint of step 2 and is resumed; restart 1 of 1 without a new checkpoint.",
            f"{failed} (traceback in out/run.log)",
            "out: died 2 times in a row after the checkpoint of step 2; not started again (max_restarts=1). "
            f"Last: {failed}",
        ],
    )
    words = (here / "out" / "command.txt").read_text().splitlines()
    assert (
        words[0].startswith("loopwright 'callbacks.dying.steps=[-3]' hydra.run.dir=out ")
        and "max_restarts=1" in words[0]
    )
    assert words[1:] == ["loopwright resume --trust=faulty out"]


@pytest.mark.slow
def test_a_run_that_exits_with_0_before_its_end_has_crashed(here: Path) -> None:
    answer = command(here, "callbacks.dying.steps=[-3]", "callbacks.dying.how=leave", "hydra.run.dir=out")
    where = "after the checkpoint of step 2"
    assert (answer.code, answer.err.splitlines()) == (
        1,
        [
            f"out: exited early with code 0 {where} and is resumed; restart 1 of 1 without a new checkpoint.",
            f"out: died 2 times in a row {where}; not started again (max_restarts=1). Last: exited early with code 0.",
        ],
    )


@pytest.mark.slow
def test_a_run_that_makes_progress_is_restarted_without_limit_and_ends_the_same(here: Path, small: Cli) -> None:
    length = ("loop.max_steps=8", "checkpoint.every_n_steps=2", "log_every_n_steps=1")
    answer = command(here, "callbacks.dying.steps=[3,5,7]", "callbacks.dying.how=kill", *length)
    (cut,) = run_dirs(here)
    said = restarts(answer)
    assert (answer.code, len(said)) == (0, 3), answer.err
    where = cut.relative_to(here)
    for line, step in zip(said, (2, 4, 6), strict=True):
        assert line == (
            f"{where}: was killed by SIGKILL after the checkpoint of step {step} and is resumed; "
            "restart 1 of 1 without a new checkpoint."
        )
    small("hydra.run.dir=straight", *length)
    ours, straight = summary(cut), summary(here / "straight")
    for key in ("state", "global_step", "metrics", "best", "weights_sha256"):
        assert ours[key] == straight[key], key
    assert (cut / "metrics.jsonl").read_bytes() == (here / "straight" / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_run_with_a_nan_loss_is_restarted_up_to_the_limit(here: Path) -> None:
    words = ("--config-dir=conf", "--trust=faulty", "experiment=faulty", "model.returns=not_a_number", "max_restarts=1")
    process_id, answer = run_process(here, *words)
    assert is_group_gone(process_id)
    assert answer.code == 1
    assert [line.partition(": ")[2] for line in restarts(answer)] == [
        "failed before its first checkpoint and is started again; restart 1 of 1 without a new checkpoint."
    ]
    assert answer.err.splitlines()[-1].partition("Last: ")[2].startswith("NonFiniteError: ")
    assert len(run_dirs(here)) == 2


@pytest.mark.slow
def test_a_run_in_a_given_directory_is_not_started_from_the_beginning_again(here: Path) -> None:
    answer = command(here, "callbacks.dying.steps=[-1]", "hydra.run.dir=out")
    assert answer.code == 1
    assert answer.err.splitlines()[1:] == [
        "out: failed before its first checkpoint; nothing to resume from. Start again in a new directory."
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code"),
    [(["data.num_train=0"], 2), (["ckpt_path=nowhere"], 3)],
)
def test_a_refused_run_is_not_restarted(words: list[str], code: int, here: Path) -> None:
    answer = command(here, *words)
    assert (answer.code, answer.err.count("\n")) == (code, 1), answer.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code", "received"),
    [
        ("terminate", 143, "SIGTERM"),  # only the run receives the signal
        (
            "terminate_group",
            143,
            "SIGTERM",
        ),  # both receive it; if the supervisor forwarded it, the run would end without a save
        ("interrupt_parent", 130, "SIGINT"),  # only the supervisor receives it
        ("kill_parent", 143, "SIGTERM"),  # the run ends because its supervisor was killed
    ],
)
def test_a_signal_ends_a_run_and_its_supervisor_after_a_save(how: str, code: int, received: str, here: Path) -> None:
    answer = command(here, f"callbacks.dying.how={how}", "hydra.run.dir=out", *ENDLESS)
    assert answer.code == (-9 if how == "kill_parent" else code)
    found = summary(here / "out")
    assert (found["state"], found["exit_code"]) == ("interrupted", code)
    step = found["global_step"]
    again = " Press Ctrl-C again to stop at once." if received == "SIGINT" else ""
    assert answer.err.splitlines() == [
        "",
        f"Stopping after this step, and saving.{again}",
        f"interrupted by {received} at global_step {step:,} (run directory: out)",
    ]
    assert "\nResume it: loopwright resume --trust=faulty out\n" in answer.out
    assert (here / "out" / "checkpoints" / f"step_{step:08d}" / "manifest.json").exists()


@pytest.mark.slow
def test_a_run_that_is_killed_after_a_signal_is_not_restarted(here: Path) -> None:
    answer = command(here, "callbacks.dying.how=interrupt_parent_and_kill", "hydra.run.dir=out")
    assert (answer.code, answer.err) == (130, "out: was killed by SIGKILL after SIGINT; not started again.\n")


@pytest.mark.slow
def test_a_truncated_checkpoint_does_not_count_as_progress(here: Path) -> None:
    """The run resumes from the checkpoint before it, writes the later checkpoint again, and crashes again."""
    words = ("callbacks.dying.steps=[-3]", "callbacks.dying.how=cut", "checkpoint.every_n_steps=1", "max_restarts=2")
    answer = command(here, *words, "hydra.run.dir=-out")
    assert answer.code == 1
    assert restarts(answer) == [
        f"-out: failed after the checkpoint of step 1 and is resumed; restart {number} of 2 without a new checkpoint."
        for number in (1, 2)
    ]
    last = "-out: died 3 times in a row after the checkpoint of step 1; not started again (max_restarts=2). Last: "
    assert answer.err.splitlines()[-1].startswith(last)
    assert (here / "-out" / "command.txt").read_text().splitlines()[1:] == [
        "loopwright resume --trust=faulty ./-out"
    ] * 2


@pytest.mark.slow
def test_a_run_with_only_damaged_checkpoints_is_not_started_from_the_beginning(here: Path) -> None:
    words = ("callbacks.dying.steps=[-3]", "callbacks.dying.how=cut")
    answer = command(here, *words, "hydra.run.dir=out")
    assert answer.code == 3
    assert restarts(answer) == [
        "out: failed before its first complete checkpoint and is resumed; restart 1 of 1 without a new checkpoint."
    ]


@pytest.mark.slow
def test_a_resumed_run_is_supervised_with_the_recorded_or_the_given_limit(here: Path, cli: Cli) -> None:
    words = [word for word in (*SMALL, *WORDS) if word != "max_restarts=1"]
    assert cli(*words, "hydra.run.dir=out").code == 1
    (here / "died_3").unlink()
    process_id, answer = run_process(here, "resume", "--trust=faulty", "out", "max_restarts=2")
    assert is_group_gone(process_id)
    assert (answer.code, len(restarts(answer))) == (0, 1), answer.err
    assert "restart 1 of 2 without a new checkpoint" in answer.err
    assert (here / "out" / "command.txt").read_text().count("max_restarts=2") == 2


def test_a_sweep_is_refused(cli: Cli) -> None:
    answer = cli("-m", "max_restarts=2", "loop.max_steps=1,2")
    assert (answer.code, answer.err) == (
        2,
        "max_restarts=2: expected 0 with -m; the runs of a sweep are not restarted.\n",
    )


@pytest.mark.parametrize("verb", ["plan", "config"])
def test_commands_that_train_nothing_are_not_supervised(verb: str, small: Cli) -> None:
    assert small(verb, "max_restarts=2").code == 0


def test_a_process_without_its_supervisor_does_not_start(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPWRIGHT_SUPERVISOR", "1000000000:3")
    answer = cli("loop.max_steps=1")
    assert (answer.code, answer.err) == (
        2,
        "LOOPWRIGHT_SUPERVISOR='1000000000:3': expected the ID of the process that started this process; "
        "unset the variable.\n",
    )
