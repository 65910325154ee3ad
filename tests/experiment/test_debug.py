"""The debug group: a short run of all stages, training on one batch, and anomaly mode."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import Answer, run_dirs

Cli = Callable[..., Answer]


def summary(root: Path) -> dict[str, Any]:
    (run_dir,) = run_dirs(root)
    told: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    return told


def metric_steps(root: Path, name: str) -> list[int]:
    lines = (run_dirs(root)[0] / "metrics.jsonl").read_text().splitlines()
    return [entry["step"] for entry in map(json.loads, lines) if entry["name"] == name]


@pytest.mark.hydra
def test_fast_trains_validates_and_saves(cli: Cli, tmp_path: Path) -> None:
    assert cli("debug=fast", "loggers=json_lines").code == 0
    assert summary(tmp_path)["global_step"] == 4
    assert metric_steps(tmp_path, "val/loss") == [2, 4]
    assert metric_steps(tmp_path, "train/loss") == [1, 2, 3, 4]
    assert (run_dirs(tmp_path)[0] / "checkpoints" / "step_00000004").is_dir()


@pytest.mark.hydra
def test_overrides_replace_values_of_the_debug_group(cli: Cli) -> None:
    assert "train 7 steps" in cli("plan", "debug=fast", "loop.num_steps=7").out
    assert "train 5 steps" in cli("plan", "debug=fast", "loop.max_steps=5").out


@pytest.mark.slow
def test_overfit_reaches_a_loss_close_to_0_and_reports_it(cli: Cli, tmp_path: Path) -> None:
    words = ["debug=overfit", "model.dropout=0", "loop.max_steps=150", "data.batch_size=8"]
    answer = cli(*words, "loggers=default")
    assert answer.code == 0
    assert "The model memorised one micro-batch" in answer.out
    assert "samples        the first micro-batch, which replaces every other one" in answer.out
    assert "1,200" not in answer.out and "passes" not in answer.out  # 150 micro-batches of 8 samples
    assert (run_dirs(tmp_path)[0] / "plan.txt").read_text().splitlines()[2] in cli("plan", *words).out
    assert "loopwright resume" not in answer.out  # no checkpoint contains the micro-batch
    told = summary(tmp_path)
    assert told["objective_name"] == "train/loss" and told["objective"] < 0.01
    assert "The model memorised one micro-batch" in (run_dirs(tmp_path)[0] / "run.log").read_text()
    assert metric_steps(tmp_path, "val/loss") == []


def test_anomaly_mode_does_not_change_results(cli: Cli, tmp_path: Path) -> None:
    for words in (["debug=anomaly"], []):
        assert cli(*words, "loop.max_steps=3", "loggers=none").code == 0
    with_mode, without = (json.loads((path / "summary.json").read_text()) for path in run_dirs(tmp_path))
    assert with_mode["weights_sha256"] == without["weights_sha256"]


def test_profile_writes_a_trace_and_does_not_change_results(cli: Cli, tmp_path: Path) -> None:
    assert cli("debug=profile", "loggers=none").code == 0
    assert cli("loop.max_steps=12", "loop.eval_frequency=null", "loggers=none").code == 0
    profiled, plain = run_dirs(tmp_path)
    assert {file.name for file in (profiled / "profile").iterdir()} == {"steps_10_to_12.json", "steps_10_to_12.txt"}
    digests = {json.loads((path / "summary.json").read_text())["weights_sha256"] for path in (profiled, plain)}
    assert len(digests) == 1


def test_the_optimizer_that_was_used_is_recorded(small: Cli, tmp_path: Path) -> None:
    small('optimizer.without_decay=["*.bias"]', "optimizer.rate_factors={layers.0.*:0.5}", "optimizer.kind=fused")
    told = summary(tmp_path)["optimizer"]
    assert told["name"] == "AdamW" and {group["kind"] for group in told["groups"]} == {"fused"}
    assert [(group["lr"], group["weight_decay"]) for group in told["groups"]] == [
        (0.0015, 0.01),
        (0.0015, 0.0),
        (0.003, 0.01),
        (0.003, 0.0),
    ]
