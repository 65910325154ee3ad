"""Each folder of examples/ trains with its command, and its losses equal the losses of its hand-written loop."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest

from command import run_in
from loopwright.records import read_series, read_summary

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

Metrics = dict[str, list[float]]


def commands(folder: str) -> list[list[str]]:
    """Return the words of each command in the README of a folder, without ``loopwright``."""
    text = (EXAMPLES / folder / "README.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", "").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    assert all(program == "loopwright" for program, *_ in words)
    return [arguments for _, *arguments in words]


def run_command(words: Sequence[str]) -> str:
    """Run a command in the root of the repository, and return its output."""
    answer = run_in(ROOT, *words)
    assert answer.code == 0, answer.err
    return answer.out


def train(folder: str, run_dir: Path, *overrides: str, index: int = 0) -> Metrics:
    """Train with a command of the README and these overrides. Return the metrics, with the losses of all steps."""
    recording = (f"hydra.run.dir={run_dir}", "log_every_n_steps=1", "loggers=json_lines")
    run_command([*commands(folder)[index], *recording, *overrides])
    return {name: list(series.values) for name, series in read_series(run_dir).items()}


def by_hand(folder: str, **arguments: int) -> Metrics:
    """Return the metrics of the hand-written loop of a folder."""
    with pytest.MonkeyPatch.context() as patch:  # as `python -m` in the root of the repository
        patch.syspath_prepend(ROOT)
        metrics: Metrics = import_module(f"examples.{folder}.by_hand").train(**arguments)
    return metrics


def test_digits_cnn_is_equal_to_the_loop(tmp_path: Path) -> None:
    small = ("data.batch_size=256", "loop.num_epochs=2", 'scheduler.milestones=["1 epoch"]')
    ours = train("digits_cnn", tmp_path / "run", *small)
    loop = by_hand("digits_cnn", num_epochs=2, batch_size=256)
    assert ours["train/loss"] == loop["train/loss"] and len(loop["train/loss"]) == 12
    assert ours["val/loss"] == loop["val/loss"]
    assert ours["val/accuracy"] == pytest.approx(loop["val/accuracy"])


CARRIED = "carried_state_lm"
SMALL_CARRIED = (
    "data.batch_size=10",
    "data.num_bytes=50",
    "data.max_bytes=7200",
    "model.width=8",
)  # 14 batches in a pass


def test_the_carried_state_is_equal_to_the_loop(tmp_path: Path) -> None:
    ours = train(CARRIED, tmp_path / "run", *SMALL_CARRIED, "loop.num_epochs=2")
    loop = by_hand(CARRIED, num_epochs=2, batch_size=10, num_bytes=50, max_bytes=7200, width=8)
    assert ours["train/loss"] == loop["train/loss"] and len(loop["train/loss"]) == 28
    assert ours["val/loss"] == loop["val/loss"] and len(loop["val/loss"]) == 2


def test_a_run_with_a_carried_state_is_resumed_bitwise(tmp_path: Path) -> None:
    """The run is cut in the middle of its second pass, and each run is validated in the middle of a pass."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    small = (*SMALL_CARRIED, "scheduler.scheduler.patience=99")  # the last validation of the cut run changes no rate
    train(CARRIED, whole, *small, "loop.max_steps=20", "loop.eval_frequency=6")
    train(CARRIED, cut, *small, "loop.max_steps=17", "loop.eval_frequency=5")
    run_command(["resume", "--trust=examples", str(cut), "loop.max_steps=20"])
    whole_metrics, cut_metrics = (read_series(run_dir)["train/loss"].values for run_dir in (whole, cut))
    assert whole_metrics == cut_metrics and len(whole_metrics) == 20
    assert read_summary(whole)["weights_sha256"] == read_summary(cut)["weights_sha256"]


@pytest.mark.parametrize("index", [1, 2])
def test_the_commands_that_check_the_carried_state(index: int) -> None:
    assert "bitwise equal" in run_command([*commands(CARRIED)[index], *SMALL_CARRIED])


GPT_CUTS = [(2, 4), (8, 1)]  # windows in a micro-batch, and micro-batches in a step, of the first two commands


def test_gradient_accumulation_is_equal_to_the_loop_in_both_ways(tmp_path: Path) -> None:
    small = ("loop.max_steps=10", "loop.eval_frequency=10", "model.width=16")
    losses = []
    for index, (batch_size, grad_accum_steps) in enumerate(GPT_CUTS):
        ours = train("gpt_accumulation", tmp_path / str(index), *small, index=index)
        loop = by_hand(
            "gpt_accumulation",
            max_steps=10,
            eval_frequency=10,
            batch_size=batch_size,
            grad_accum_steps=grad_accum_steps,
            width=16,
        )
        assert ours["train/loss"] == loop["train/loss"] and len(loop["train/loss"]) == 10
        assert ours["val/loss"] == loop["val/loss"] and len(loop["val/loss"]) == 1
        losses.append(ours["train/loss"] + ours["val/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_command_that_checks_the_accumulation() -> None:
    assert "equal to rounding" in run_command([*commands("gpt_accumulation")[2], "model.width=16", "loop.max_steps=2"])


def test_mixup_and_averaged_weights_are_equal_to_the_loop(tmp_path: Path) -> None:
    """The hand-written loop validates at the end, with the average."""
    ours = train("mixup_classifier", tmp_path / "run", "data.batch_size=256", "loop.num_epochs=2")
    loop = by_hand("mixup_classifier", num_epochs=2, batch_size=256)
    assert ours["train/loss"] == loop["train/loss"] and len(loop["train/loss"]) == 12
    assert ours["val/loss"] == loop["val/loss"] and len(loop["val/loss"]) == 1
    assert ours["val/accuracy"] == pytest.approx(loop["val/accuracy"])


@pytest.mark.slow
def test_the_command_that_checks_the_workers() -> None:
    """Slow, because it starts processes."""
    assert "bitwise equal" in run_command(commands("mixup_classifier")[1])
