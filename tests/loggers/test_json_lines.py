"""Tests of `JSONLinesLogger`, also on a full disk."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from torch.utils.data import DataLoader

import tiny
from loopwright import Callback, Checkpointing, Trainer, TrainingLoop
from loopwright.errors import SaveError
from loopwright.loggers import JSONLinesLogger


def strict_lines(file: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is not JSON")

    text = file.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_a_run_writes_its_metrics_and_its_timings(tmp_path: Path) -> None:
    with tiny.trainer(
        TrainingLoop(num_steps=4), loggers=[JSONLinesLogger()], log_every_n_steps=2, run_dir=tmp_path
    ) as t:
        t.fit(tiny.batches(), DataLoader(tiny.rows(6)))
    metrics = strict_lines(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["name"]) for line in metrics] == [
        (2, "train/loss"),
        (2, "train/error"),
        (4, "train/loss"),
        (4, "train/error"),
        (4, "val/loss"),
        (4, "val/error"),
    ]
    assert all(list(line) == ["step", "name", "value"] and isinstance(line["value"], float) for line in metrics)
    assert {line["name"] for line in strict_lines(tmp_path / "timing.jsonl")} >= {"train/steps_per_second"}


def test_two_runs_with_the_same_seed_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with tiny.trainer(loggers=[JSONLinesLogger()], log_every_n_steps=1, run_dir=tmp_path / name) as trainer:
            trainer.fit(tiny.batches(), DataLoader(tiny.rows(6)))
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


def test_metrics_of_a_second_fit_and_a_later_validation_are_appended(tmp_path: Path) -> None:
    with tiny.trainer(TrainingLoop(num_steps=1), loggers=[JSONLinesLogger()], run_dir=tmp_path) as trainer:
        for _ in range(2):
            trainer.fit(tiny.batches())
        trainer.validate(DataLoader(tiny.rows(6)))
    metrics = strict_lines(tmp_path / "metrics.jsonl")
    losses = [(line["step"], line["name"]) for line in metrics if line["name"].endswith("loss")]
    assert losses == [(1, "train/loss"), (2, "train/loss"), (2, "val/loss")]


def test_logged_values_are_in_the_file_immediately(tmp_path: Path) -> None:
    counts: list[int] = []

    def count(trainer: Any, batch: Any, batch_idx: int) -> None:
        counts.append(len(strict_lines(tmp_path / "metrics.jsonl")))

    trainer = tiny.trainer(
        TrainingLoop(num_steps=3),
        loggers=[JSONLinesLogger()],
        callbacks=[tiny.Recorder(count)],
        log_every_n_steps=1,
        run_dir=tmp_path,
    )
    trainer.fit(tiny.batches())
    assert counts == [2, 4, 6]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_a_string_that_float_reads(tmp_path: Path, value: float) -> None:
    logger = JSONLinesLogger()
    with tiny.trainer(loggers=[logger], run_dir=tmp_path):
        logger.log_metrics({"loss": value}, 1)
    (line,) = strict_lines(tmp_path / "metrics.jsonl")
    assert isinstance(line["value"], str)
    assert str(float(line["value"])) == str(value)


def test_every_finite_value_is_read_back_bitwise(tmp_path: Path) -> None:
    values = [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3]
    logger = JSONLinesLogger()
    with tiny.trainer(loggers=[logger], run_dir=tmp_path):
        logger.log_metrics({str(index): value for index, value in enumerate(values)}, 1)
    assert [line["value"].hex() for line in strict_lines(tmp_path / "metrics.jsonl")] == [v.hex() for v in values]


def test_no_file_is_written_if_nothing_is_logged(tmp_path: Path) -> None:
    tiny.trainer(loggers=[JSONLinesLogger()], run_dir=tmp_path / "run").close()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_trainer_without_a_run_directory_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^run_dir=null: expected a directory for metrics\.jsonl; give Trainer\(run_dir="
    ):
        tiny.trainer(loggers=[JSONLinesLogger()])


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    logger = JSONLinesLogger()
    trainer = tiny.trainer(loggers=[logger], run_dir=tmp_path)
    trainer.fit(tiny.batches())
    for _ in range(2):
        trainer.close()
        logger.finalize()


class FullDisk:
    """A disk for `AppendedFiles` that can be filled.

    While it is full, it accepts seven more bytes of lines that contain ``marker``, and then raises an error.
    Checkpoints are not affected, because they are written by other modules.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, marker: bytes = b'"name": "train/') -> None:
        self.is_full = False
        self._marker = marker
        self._num_free = 7
        self._write = os.write
        monkeypatch.setattr("loopwright.loggers.append_only.os.write", self.write)

    def write(self, file: int, data: bytes) -> int:
        if self.is_full and self._marker in data:
            num_free, self._num_free = self._num_free, 0
            if not num_free:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._write(file, data[:num_free])
        return self._write(file, data)


@pytest.mark.parametrize("on_save_error", ["stop", "continue"])
def test_lines_wait_while_the_disk_is_full_and_a_save_fails_or_continues(
    on_save_error: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk(monkeypatch)

    def fill(ours: Trainer, batch: Any, batch_idx: int) -> None:
        disk.is_full = 3 <= ours.global_step < 7

    def fit(where: Path, *listeners: Callback) -> None:
        settings: dict[str, Any] = {"log_every_n_steps": 1, "run_dir": where}
        saving = Checkpointing(every_n_steps=4, on_save_error=on_save_error)  # type: ignore[arg-type]
        loop = TrainingLoop(num_steps=8, eval_frequency=None)
        with tiny.trainer(
            loop, callbacks=[*listeners], loggers=[JSONLinesLogger()], checkpoint=saving, **settings
        ) as t:
            t.fit(tiny.batches(8))

    fit(tmp_path / "roomy")
    expected = (tmp_path / "roomy" / "metrics.jsonl").read_text()
    with caplog.at_level(logging.WARNING, "loopwright"):
        if on_save_error == "stop":
            with pytest.raises(SaveError, match=r"metrics.jsonl: cannot be written; \d+ bytes needed, [\d,]+ free"):
                fit(tmp_path / "full", tiny.Recorder(fill))
        else:
            fit(tmp_path / "full", tiny.Recorder(fill))
            assert (tmp_path / "full" / "metrics.jsonl").read_text() == expected
    warnings = [line for line in caplog.messages if "metrics.jsonl: cannot be written now (No space left" in line]
    assert len(warnings) == 1


def test_a_fit_fails_if_its_last_metrics_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last validation is logged after the last save, so no save would notice that its metrics are missing."""
    disk = FullDisk(monkeypatch, marker=b'"name": "val/')
    disk.is_full = True
    settings: dict[str, Any] = {"checkpoint": Checkpointing(), "loggers": [JSONLinesLogger()], "run_dir": tmp_path}
    t = tiny.trainer(TrainingLoop(num_steps=4), **settings)
    with pytest.raises(SaveError, match=r"metrics.jsonl: cannot be written; \d+ bytes needed, [\d,]+ free"):
        t.fit(tiny.batches(), DataLoader(tiny.rows(6)))
    with pytest.raises(SaveError, match=r"(metrics|timing).jsonl: cannot be written; "):
        t.close()
    disk.is_full = False
    with tiny.trainer(TrainingLoop(num_steps=4), **settings) as again:
        again.fit(tiny.batches(), DataLoader(tiny.rows(6)), ckpt_path="last")
    assert [line["name"] for line in strict_lines(tmp_path / "metrics.jsonl")][-2:] == ["val/loss", "val/error"]


def test_closing_fails_if_the_metrics_of_a_validation_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, marker=b'"name": "val/')
    disk.is_full = True
    t = tiny.trainer(loggers=[JSONLinesLogger()], run_dir=tmp_path)
    with pytest.raises(SaveError, match=r"metrics.jsonl: cannot be written; "), t:
        t.validate(DataLoader(tiny.rows(6)))
