"""Tests of reading a run's metrics and summary."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

import special
import tiny
from limited import limited
from loopwright import TrainingLoop
from loopwright.errors import CheckpointError
from loopwright.loggers import JSONLinesLogger
from loopwright.records import Series, draw_curves, read_mapping, read_metrics, read_record, read_series, read_summary


def test_metrics_that_a_logger_wrote_are_read_back(tmp_path: Path) -> None:
    logger = JSONLinesLogger()
    with tiny.trainer(TrainingLoop(num_steps=3), loggers=[logger], log_every_n_steps=1, run_dir=tmp_path) as trainer:
        result = trainer.fit(tiny.batches())
        logger.log_metrics({"odd": math.nan, "huge": -math.inf}, 3)
    series = read_series(tmp_path)
    assert list(series) == ["train/loss", "train/error", "odd", "huge"]
    assert list(series["train/loss"].steps) == [1, 2, 3]
    assert series["train/loss"].values[-1] == result.metrics["train/loss"]
    assert math.isnan(series["odd"].values[0]) and series["huge"].values == [-math.inf]


def test_unreadable_lines_are_skipped_and_the_last_value_of_a_step_is_used(tmp_path: Path) -> None:
    lines = ['{"step": 2, "name": "a", "value": 1.0}', '{"step": 1, "name": "a", "value": 5}', "[]", "7", "{}", "\x00"]
    lines.append("[" * 100_000)
    lines += ['{"step": 2, "name": "a", "value": "Infinity"}', '{"step": 3, "name": "a", "va']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert read_series(tmp_path) == {"a": Series("a", [1, 2], [5.0, math.inf])}


def test_a_run_that_logged_nothing_has_no_series_and_no_summary(tmp_path: Path) -> None:
    assert read_series(tmp_path) == {}
    assert read_summary(tmp_path) == {}
    (tmp_path / "summary.json").write_text("[]")
    assert read_summary(tmp_path) == {}
    for depth in (100, 100_000):
        (tmp_path / "summary.json").write_text('{"a": ' + "[" * depth + "]" * depth + "}")
        assert read_summary(tmp_path) == {}
    (tmp_path / "summary.json").write_text(json.dumps({"state": "completed"}))
    assert read_summary(tmp_path) == {"state": "completed"}


def test_the_best_value_is_finite_and_the_first_of_equal_ones() -> None:
    series = Series("a", [1, 2, 3, 4, 5], [math.nan, 2.0, 1.0, 1.0, -math.inf])
    assert series.best("min") == (3, 1.0)
    assert series.best("max") == (2, 2.0)
    assert Series("a", [1], [math.nan]).best("min") is None


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", [*special.KINDS, "holes"])
def test_records_that_are_no_regular_files_or_have_no_end_are_not_read(kind: str, tmp_path: Path) -> None:
    special.make(tmp_path / "metrics.jsonl", kind)
    special.make(tmp_path / "summary.json", kind)
    for read in (read_summary, read_series, draw_curves):
        with pytest.raises(CheckpointError, match=r"cannot be read: (not a regular file|.* bytes; expected at most)"):
            limited(read, tmp_path, timeout_seconds=10)


def test_pipes_links_and_devices_are_no_records(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for file in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), tmp_path):
        with pytest.raises(CheckpointError, match=r"cannot be read: .*; expected the file that a run recorded"):
            limited(read_record, file, timeout_seconds=10)
    assert read_record(tmp_path / "none") is None


def test_records_of_holes_are_refused_in_one_line(tmp_path: Path) -> None:
    for name, size, read in (
        ("summary.json", 3 << 40, read_summary),
        ("metrics.jsonl", 3 << 40, read_series),
        ("metrics.jsonl", 3 << 30, read_series),
    ):
        file = tmp_path / name
        file.touch()
        os.truncate(file, size)
        with pytest.raises(CheckpointError) as caught:
            limited(read, tmp_path, timeout_seconds=10)
        assert str(caught.value).startswith(f"{file}: cannot be read: ") and "\n" not in str(caught.value)
    file = tmp_path / "environment.json"
    file.touch()
    os.truncate(file, 20_000_000)
    with pytest.raises(CheckpointError, match="20,000,000 bytes; expected at most 16,777,216"):
        limited(read_mapping, file, timeout_seconds=10)


METRICS = """\
{"step": 2, "name": "a", "value": 1.0}
{"step": 1, "name": "b", "value": "NaN"}
{"step": 2, "name": "b", "value": 3}
"""


def test_metrics_are_read_as_one_row_per_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopwright.records.series.find_spec", lambda name: None)  # as without pandas
    (tmp_path / "metrics.jsonl").write_text(METRICS)
    first, second = read_metrics(tmp_path)
    assert first.keys() == {"step", "b"} and math.isnan(first["b"])
    assert second == {"step": 2, "a": 1.0, "b": 3.0}


@pytest.mark.extras
def test_metrics_are_a_data_frame_where_pandas_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    (tmp_path / "metrics.jsonl").write_text(METRICS)
    table = read_metrics(tmp_path)
    assert (list(table.index), list(table.columns)) == ([1, 2], ["a", "b"])
    assert table.loc[2, "b"] == 3 and math.isnan(table.loc[1, "a"])


def test_a_directory_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no metrics; expected a run directory with metrics\.jsonl"):
        read_metrics(tmp_path)
