"""The default experiment reaches the accuracy that its file states."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from loopwright.checkpoint import read_checkpoint
from loopwright.cli import main


@pytest.mark.slow
def test_digits_reach_97_percent_at_the_median_of_five_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "seed=0,1,2,3,4", "hydra.sweep.dir=sweep"]) == 0
    summaries = [json.loads((tmp_path / f"sweep/{job}/summary.json").read_text()) for job in range(5)]
    assert statistics.median(summary["metrics"]["val/accuracy"] for summary in summaries) > 0.97
    assert len({summary["weights_sha256"] for summary in summaries}) == 5


def test_a_checkpoint_holds_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["loop.max_steps=3", "hydra.run.dir=run"]) == 0
    config = read_checkpoint(tmp_path / "run/checkpoints/step_00000003").state["config"]
    assert config["loop"]["max_steps"] == 3 and config["model"]["_target_"] == "loopwright.models.MLP"
