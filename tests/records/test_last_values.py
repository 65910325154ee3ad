"""`with_logged` adds the logged metrics to the record of a run that has recorded no end."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from loopwright.records import BestValue, read_run, with_logged


def make_run(directory: Path, lines: list[object], state: str = "running") -> Path:
    summary = {"state": state, "objective_name": "val/loss", "objective_mode": "min", "metrics": {}, "global_step": 0}
    (directory / "summary.json").write_text(json.dumps(summary))
    (directory / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return directory


def line(step: int, name: str, value: object) -> dict[str, object]:
    return {"step": step, "name": name, "value": value}


def test_the_last_values_of_a_killed_run_are_read_from_its_metrics(tmp_path: Path) -> None:
    lines = [line(2, "val/loss", 0.5), line(4, "val/loss", 0.25), line(6, "val/loss", "NaN"), line(8, "lr", 0.1)]
    run = with_logged(read_run(make_run(tmp_path, [*lines, "no entry"])))
    assert (run.state, run.global_step, run.metrics["lr"]) == ("lost", 8, 0.1)
    assert run.objective is not None and math.isnan(run.objective)
    assert run.best == BestValue("val/loss", 0.25, 4)


def test_the_objective_is_found_far_before_the_end_of_the_file(tmp_path: Path) -> None:
    lines = [line(1, "val/loss", 0.5), *(line(step, "train/loss", 1.0) for step in range(2, 3000))]
    run = with_logged(read_run(make_run(tmp_path, lines)))
    assert run.best == BestValue("val/loss", 0.5, 1) and run.global_step == 2999
    assert set(run.metrics) == {"train/loss"} and run.objective == 0.5


@pytest.mark.parametrize("state", ["completed", "failed", "other"])
def test_the_summary_of_a_run_that_has_ended_is_kept(state: str, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path, [line(2, "val/loss", 0.5)], state))
    assert with_logged(run) == run


def test_a_link_is_not_read(tmp_path: Path) -> None:
    run = make_run(tmp_path, [])
    (run / "other").write_text(json.dumps(line(2, "val/loss", 0.5)))
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to("other")
    assert with_logged(read_run(run)).objective is None
