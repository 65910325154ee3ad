"""Settings in epochs from the command line: runs, resumes, sweeps, recorded runs and ``verify``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import Answer, run_dirs, small_run

Cli = Callable[..., Answer]

# An epoch has 6 steps.
EPOCHS = (
    "loop.eval_frequency=1 epoch",
    "checkpoint.every_n_steps=0.5 epochs",
    "checkpoint.keep_last=1",
    "checkpoint.keep_every=1.5 epochs",
    "scheduler=step",
    "scheduler.milestones=[1 epoch]",
    "scheduler.warmup_steps=0.5 epochs",
    "loop.num_epochs=2",
    "loop.max_steps=null",
)


def summary(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / "summary.json").read_text())
    assert isinstance(found, dict)
    return found


def run(cli: Cli, *words: str) -> Answer:
    answer = cli(*small_run(*words, *EPOCHS))
    assert answer.code == 0, answer.err
    return answer


@pytest.mark.slow
def test_a_run_in_epochs_is_recorded_and_resumed_in_either_unit(cli: Cli, tmp_path: Path) -> None:
    run(cli, "hydra.run.dir=ours")
    kept = {path.name for path in Path("ours/checkpoints").iterdir()}
    assert kept - {"step_00000006"} == {"step_00000009", "step_00000012"}  # step 6 may be the best
    assert yaml.safe_load(Path("ours/config.yaml").read_text())["loop"]["eval_frequency"] == "1 epoch"
    settings = json.loads(Path("ours/plan.json").read_text())["settings"]
    assert (settings["loop.eval_frequency"], settings["eval_every"]) == ("1 epoch", 6)
    assert settings["checkpoint.every_n_steps"] == 3
    text = Path("ours/plan.txt").read_text()
    assert "after every 6 steps (1 epoch), 2 times" in text and "every 3rd global_step (0.5 epochs)" in text
    for words in (["loop.eval_frequency=6"], ["checkpoint.every_n_steps=3"], ["loop.eval_frequency=1 epoch"]):
        answer = cli("resume", "ours", *words, "loop.num_epochs=3")
        assert (answer.code, summary(tmp_path / "ours")["global_step"]) == (0, 18), answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loop.eval_frequency=5"], "its run had other settings (loop.eval_frequency: 1 epoch -> 5); expected"),
        (["checkpoint.every_n_steps=1.5 epochs"], "its run had other settings (checkpoint.every_n_steps: 3 -> 9); "),
        (["scheduler.warmup_steps=3"], "a resumed run keeps its settings (scheduler.warmup_steps: '0.5 epochs' rec"),
    ],
)
def test_other_steps_are_refused_on_a_resume(words: list[str], said: str, cli: Cli) -> None:
    run(cli, "hydra.run.dir=ours")
    answer = cli("resume", "ours", *words, "loop.num_epochs=3")
    assert answer.code == 2 and said in answer.err


@pytest.mark.slow
def test_jobs_of_a_sweep_count_their_own_epochs(cli: Cli, tmp_path: Path) -> None:
    words = [word for word in EPOCHS if not word.startswith("checkpoint")]
    answer = cli("-m", *small_run("loop.grad_accum_steps=1,2", "checkpoint.every_n_steps=null", *words))
    assert answer.code == 0, answer.err
    plans = sorted(tmp_path.glob("outputs/*/*_sweep/*/plan.json"))
    assert [json.loads(plan.read_text())["settings"]["eval_every"] for plan in plans] == [6, 3]


@pytest.mark.slow
def test_runs_in_epochs_are_verified_and_reproduced(cli: Cli, tmp_path: Path) -> None:
    answer = cli("verify", "resume", *small_run(*EPOCHS))
    assert answer.code == 0, answer.out
    run(cli)
    (directory,) = run_dirs(tmp_path)
    answer = cli("reproduce", str(directory))
    assert (answer.code, "bitwise equal" in answer.out) == (0, True), answer.out
