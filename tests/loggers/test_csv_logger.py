"""Tests of `CSVLogger`."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from torch import Tensor
from torch.utils.data import DataLoader

import tiny
from loopwright import TrainingLoop
from loopwright.loggers import CSVLogger, JSONLinesLogger


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table))


def validation() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(tiny.rows(8), batch_size=4)


def test_a_run_writes_a_long_table_of_its_metrics_without_timings(tmp_path: Path) -> None:
    with tiny.trainer(TrainingLoop(num_steps=4), loggers=[CSVLogger()], log_every_n_steps=2, run_dir=tmp_path) as t:
        t.fit(tiny.batches(), DataLoader(tiny.rows(6)))
    assert (tmp_path / "metrics.csv").read_text().startswith("step,name,value\n2,train/loss,")
    assert [(row["step"], row["name"]) for row in rows(tmp_path / "metrics.csv")] == [
        ("2", "train/loss"),
        ("2", "train/error"),
        ("4", "train/loss"),
        ("4", "train/error"),
        ("4", "val/loss"),
        ("4", "val/error"),
    ]


def test_two_runs_with_the_same_seed_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with tiny.trainer(loggers=[CSVLogger()], log_every_n_steps=1, run_dir=tmp_path / name) as trainer:
            trainer.fit(tiny.batches())
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()


def test_a_second_trainer_in_the_same_directory_appends_without_a_second_header(tmp_path: Path) -> None:
    with tiny.trainer(TrainingLoop(num_steps=1), loggers=[CSVLogger()], run_dir=tmp_path) as trainer:
        trainer.fit(tiny.batches())
    with tiny.trainer(loggers=[CSVLogger()], run_dir=tmp_path) as trainer:
        trainer.validate(validation())
    table = rows(tmp_path / "metrics.csv")
    assert [row["name"] for row in table] == ["train/loss", "train/error", "val/loss", "val/error"]


def test_logged_values_are_in_the_file_immediately(tmp_path: Path) -> None:
    counts: list[int] = []
    watch = tiny.Recorder(lambda *_: counts.append(len(rows(tmp_path / "metrics.csv"))))
    loop = TrainingLoop(num_steps=3)
    tiny.trainer(loop, loggers=[CSVLogger()], callbacks=[watch], log_every_n_steps=1, run_dir=tmp_path).fit(
        tiny.batches()
    )
    assert counts == [2, 4, 6]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.1, -0.0, 5e-324, 1 / 3, 1e300])
def test_every_value_is_read_back_unchanged(tmp_path: Path, value: float) -> None:
    logger = CSVLogger()
    with tiny.trainer(loggers=[logger], run_dir=tmp_path):
        logger.log_metrics({'odd, "name"': value}, 1)
    (row,) = rows(tmp_path / "metrics.csv")
    assert row["name"] == 'odd, "name"'
    assert math.isnan(float(row["value"])) if math.isnan(value) else float(row["value"]).hex() == value.hex()


@pytest.mark.extras
def test_pandas_makes_a_row_per_step_and_a_column_per_metric(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with tiny.trainer(loggers=[CSVLogger()], log_every_n_steps=1, run_dir=tmp_path) as trainer:
        trainer.fit(tiny.batches(), validation())
    table = pandas.read_csv(tmp_path / "metrics.csv")
    wide = table.pivot_table(index="step", columns="name", values="value")
    assert list(wide.columns) == ["train/error", "train/loss", "val/error", "val/loss"]
    assert list(wide.index) == [1, 2, 3, 4, 5]


def test_no_file_is_written_if_nothing_is_logged(tmp_path: Path) -> None:
    tiny.trainer(loggers=[CSVLogger(), JSONLinesLogger()], run_dir=tmp_path / "run").close()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_trainer_without_a_run_directory_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^run_dir=null: expected a directory for metrics\.csv; give Trainer\(run_dir="
    ):
        tiny.trainer(loggers=[CSVLogger()])


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    logger = CSVLogger()
    trainer = tiny.trainer(loggers=[logger], run_dir=tmp_path)
    trainer.fit(tiny.batches())
    for _ in range(2):
        trainer.close()
        logger.finalize()
