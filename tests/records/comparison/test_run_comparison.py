"""`compare_runs` over directories as runs leave them, and over directories whose files are missing or damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from left_runs import leave_run, write_run
from loopwright.errors import CheckpointError
from loopwright.records.comparison.metric_values import MetricValues, mode_of
from loopwright.records.comparison.run_comparison import compare_runs
from special import KINDS, make


def test_metrics_are_side_by_side_with_the_objective_first(tmp_path: Path) -> None:
    values = {"train/loss": [3.0, 2.0], "lr": [0.1, 0.2], "val/accuracy": [0.5, 0.25], "val/loss": [0.5, "NaN"]}
    first = leave_run(tmp_path, "00000a", values=values, metrics={"val/loss": "NaN", "val/accuracy": 0.25})
    second = leave_run(
        tmp_path, "00000b", metrics={"val/loss": 0.75}, best={"name": "val/loss", "value": 0.5, "step": 8}
    )
    found = compare_runs([first, second])
    assert found.labels == ("00000a", "00000b") and found.problems == ()
    assert [each.name for each in found.metrics] == ["val/loss", "val/accuracy", "train/loss", "lr"]
    loss, accuracy, train, rate = found.metrics
    assert math.isnan(loss.last[0] or 0.0) and loss.last[1] == 0.75
    assert (loss.best, loss.best_steps) == ((0.5, 0.5), (10, 8))
    assert accuracy == MetricValues(name="val/accuracy", last=(0.25, None), best=(0.5, None), best_steps=(10, None))
    assert (train.last, train.best) == ((2.0, None), (2.0, None))
    assert (rate.last, rate.best) == ((0.2, None), (None, None))


def test_the_recorded_mode_decides_which_value_is_best() -> None:
    assert mode_of("val/score", {}) is None
    assert mode_of("val/score", {"val/score": "max"}) == "max"
    assert mode_of("val/loss", {"val/loss": "max"}) == "max"
    assert (mode_of("val/loss", {"val/score": None}), mode_of("val/accuracy", {})) == ("min", "max")


def test_runs_with_equal_ids_are_named_by_their_paths(tmp_path: Path) -> None:
    runs = [leave_run(tmp_path / place, "00000a") for place in ("one", "two")]
    assert compare_runs(runs).labels == tuple(map(str, runs))


@pytest.mark.parametrize("kind", [*KINDS, "holes"])
def test_files_that_are_not_regular_are_problems(kind: str, tmp_path: Path) -> None:
    good, bad = leave_run(tmp_path, "00000a"), leave_run(tmp_path, "00000b", config=None)
    for name in ("config.yaml", "environment.json", "git.diff", "metrics.jsonl"):
        make(bad / name, kind)
    found = compare_runs([good, bad])
    assert len(found.problems) == 4 and all(str(bad) in problem for problem in found.problems)
    assert found.differences == ()
    assert found.missing == (
        ("configuration", ("00000b",)),
        ("environment", ("00000a", "00000b")),
        ("data", found.labels),
    )


def test_hostile_values_are_not_compared_as_settings(tmp_path: Path) -> None:
    texts = [
        "a: &a [1]\nb: *a\n",
        "a: !!python/name:os.system\n",
        "a: {" * 200,
        "a: 1\na: 2\n",
        "a: [" + "1," * 30_000 + "]",
    ]
    runs = [leave_run(tmp_path, f"00000{place}", config=text) for place, text in enumerate(texts)]
    runs += [leave_run(tmp_path, "00000a"), leave_run(tmp_path, "00000b", config="optimizer: {lr: 0.1}\n")]
    found = compare_runs(runs)
    assert len(found.problems) == len(texts)
    (difference,) = found.differences
    assert (difference.name, difference.values[-2:]) == ("optimizer.lr", (0.003, 0.1))


def test_a_diff_is_compared_by_its_content(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in ("one", "two")]
    for run, text in zip(runs, ("-a\n+b\n", "-a\n+c"), strict=True):
        (run / "environment.json").write_text(json.dumps({"git": {"commit": "0"}}))
        (run / "git.diff").write_text(text)
    (difference,) = compare_runs(runs).differences
    assert (difference.section, difference.name) == ("source", "git.diff")
    assert [value["num_lines"] for value in difference.values] == [2, 2]


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a run directory"):
        compare_runs([leave_run(tmp_path, "00000a"), tmp_path])
