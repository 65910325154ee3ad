"""Each folder of examples/ trains with its command, and its losses equal the losses of its hand-written loop."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

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
    words = [word for word in commands(folder)[index] if not word.startswith("hydra.run.dir=")]
    run_command([*words, *recording, *overrides])
    return {name: list(series.values) for name, series in read_series(run_dir).items()}


def by_hand(folder: str) -> Any:
    """Return the module with the hand-written loop of a folder."""
    with pytest.MonkeyPatch.context() as patch:  # as ``python -m`` in the root of the repository
        patch.syspath_prepend(ROOT)
        return import_module(f"examples.{folder}.by_hand")


def test_digits_cnn_is_equal_to_the_loop(tmp_path: Path) -> None:
    small = ("data.batch_size=256", "loop.num_epochs=2", 'scheduler.milestones=["1 epoch"]')
    ours = train("digits_cnn", tmp_path / "run", *small)
    loop = by_hand("digits_cnn").train(num_epochs=2, batch_size=256)
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
    loop = by_hand(CARRIED).train(num_epochs=2, batch_size=10, num_bytes=50, max_bytes=7200, width=8)
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


@pytest.mark.slow
def test_gradient_accumulation_is_equal_to_the_loop_in_both_ways(tmp_path: Path) -> None:
    small = ("loop.max_steps=10", "loop.eval_frequency=10", "model.width=16")
    losses = []
    for index, (batch_size, grad_accum_steps) in enumerate(GPT_CUTS):
        ours = train("gpt_accumulation", tmp_path / str(index), *small, index=index)
        loop = by_hand("gpt_accumulation").train(
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
    loop = by_hand("mixup_classifier").train(num_epochs=2, batch_size=256)
    assert ours["train/loss"] == loop["train/loss"] and len(loop["train/loss"]) == 12
    assert ours["val/loss"] == loop["val/loss"] and len(loop["val/loss"]) == 1
    assert ours["val/accuracy"] == pytest.approx(loop["val/accuracy"])


def test_the_command_that_checks_the_workers() -> None:
    assert "bitwise equal" in run_command(commands("mixup_classifier")[1])


@pytest.mark.slow
def test_a_table_leads_to_the_predictions_of_the_loop(tmp_path: Path) -> None:
    """All five commands of the README run in their order."""
    folder, run_dir = "table_to_predictions", tmp_path / "run"
    plan, _, validate, predict, export = commands(folder)
    small = ("loop.max_steps=20", "loop.eval_frequency=10")
    assert "target species: 3 classes" in run_command([*plan, *small])
    ours = train(folder, run_dir, *small, index=1)
    metrics, predictions = by_hand(folder).train(max_steps=20, eval_frequency=10)
    assert ours["train/loss"] == metrics["train/loss"] and len(metrics["train/loss"]) == 20
    assert ours["val/loss"] == pytest.approx(metrics["val/loss"], rel=1e-6) and len(metrics["val/loss"]) == 2
    assert ours["val/accuracy"] == pytest.approx(metrics["val/accuracy"])
    for words in (validate, predict, export):
        run_command([word.replace("outputs/iris", str(run_dir)) for word in words])
    with (run_dir / "predictions_20.csv").open(encoding="utf-8") as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == predictions
    assert (run_dir / "step_00000020.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "index", "row"),
    [
        ("digits_cnn", 0, "val/loss"),
        ("carried_state_lm", 0, "val/loss"),
        ("gpt_accumulation", 0, "4 micro-batches of 2"),
        ("gpt_accumulation", 1, "1 micro-batch of 8"),
        ("mixup_classifier", 0, "val/loss"),
        ("table_to_predictions", 1, "val/loss"),
    ],
)
def test_the_readme_shows_the_loss_of_its_command(folder: str, index: int, row: str, tmp_path: Path) -> None:
    """The loss depends a little on the processor, so it may differ by two percent."""
    ours = train(folder, tmp_path / "run", index=index)["val/loss"][-1]
    text = (EXAMPLES / folder / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(rf"^\| {row} \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert [float(loss) for loss in shown] == pytest.approx([ours, ours], rel=0.02)


def test_the_page_lists_each_folder() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\(\1\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.parent.name for path in EXAMPLES.glob("*/by_hand.py"))
