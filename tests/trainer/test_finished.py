"""A resume of a run that carried out its whole plan repeats no validation, and has the same results."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from loopwright import Callback, Checkpointing, FitResult, Trainer, TrainingLoop, ValidationCallback
from loopwright.loggers import CSVLogger, JSONLinesLogger


class Watch(Callback):
    """Counts the hooks of fits and validations, and fails in the ``fails_at``-th round of validations."""

    def __init__(self, fails_at: int = 0) -> None:
        self.calls: list[str] = []
        self._num_left = fails_at

    def on_fit_start(self, *_: Any) -> None:
        self.calls.append("fit starts")

    def on_fit_end(self, *_: Any) -> None:
        self.calls.append("fit ends")

    def on_train_batch_end(self, *_: Any) -> None:
        self.calls.append("trained")

    def on_enter_validate_all(self, *_: Any) -> None:
        self._num_left -= 1
        if self._num_left == 0:
            raise RuntimeError("killed")
        self.calls.append("validates")


class Costly(ValidationCallback):
    """A downstream validation that logs a metric that is not finite."""

    def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
        trainer.log_metrics(**{"costly/score": float("inf"), "costly/step": trainer.global_step})


def fit(
    run_dir: Path, watch: Callback, *, num_steps: int = 7, ckpt_path: str | Path | None = None, **settings: Any
) -> FitResult:
    arguments: dict[str, Any] = {
        "callbacks": [watch, Costly(every_n_vals=2, name="costly")],
        "loggers": [JSONLinesLogger(), CSVLogger()],
        "checkpoint": Checkpointing(every_n_steps=3),
        "log_every_n_steps": 2,
        "run_dir": run_dir,
    }
    with tiny.trainer(TrainingLoop(num_steps=num_steps, eval_frequency=2), **(arguments | settings)) as trainer:
        return trainer.fit(tiny.batches(), tiny.batches(2), ckpt_path=ckpt_path)


def files(run_dir: Path) -> dict[str, bytes]:
    return {name: (run_dir / name).read_bytes() for name in ("metrics.jsonl", "metrics.csv", "finished.json")}


def facts(result: FitResult) -> tuple[Any, ...]:
    return result.state, result.global_step, dict(result.metrics), result.best


def test_a_finished_run_is_not_validated_again(tmp_path: Path) -> None:
    first = fit(tmp_path, Watch())
    assert first.metrics["costly/step"] == 7
    before = files(tmp_path)
    for _ in range(2):
        watch = Watch()
        again = fit(tmp_path, watch, ckpt_path="last")
        assert watch.calls == ["fit starts", "fit ends"]
        assert facts(again) == facts(first) and list(again.plan) == []
        assert files(tmp_path) == before


def test_its_checkpoint_is_resumed_in_another_directory_without_validations(tmp_path: Path) -> None:
    first = fit(tmp_path / "run", Watch())
    watch = Watch()
    again = fit(tmp_path / "other", watch, ckpt_path=tmp_path / "run")
    assert watch.calls == ["fit starts", "fit ends"]
    assert facts(again) == facts(first)
    assert not (tmp_path / "other" / "finished.json").exists()


def test_a_run_that_ends_between_its_last_save_and_its_last_validation_is_validated(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path / "cut", Watch(fails_at=4))
    assert not (tmp_path / "cut" / "finished.json").exists()
    watch = Watch()
    result = fit(tmp_path / "cut", watch, ckpt_path="last")
    assert watch.calls == ["fit starts", "validates", "fit ends"]
    assert facts(result) == facts(fit(tmp_path / "straight", Watch()))
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "straight" / name).read_text()


def test_a_later_end_continues_the_run(tmp_path: Path) -> None:
    fit(tmp_path / "run", Watch(), num_steps=6)
    watch = Watch()
    result = fit(tmp_path / "run", watch, num_steps=8, ckpt_path="last")
    assert watch.calls.count("trained") == 2
    assert facts(result) == facts(fit(tmp_path / "straight", Watch(), num_steps=8))
    texts = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("run", "straight")]
    assert texts[0] == texts[1]


def test_a_fit_that_trains_again_removes_the_record_first(tmp_path: Path) -> None:
    class Looks(Callback):
        found: list[bool]

        def on_train_start(self, trainer: Trainer, *_: Any) -> None:
            self.found = [(tmp_path / "finished.json").exists()]

    fit(tmp_path, Watch())
    assert (tmp_path / "finished.json").exists()
    looks = Looks()
    fit(tmp_path, looks, ckpt_path=tmp_path / "checkpoints" / "step_00000003")
    assert looks.found == [False] and (tmp_path / "finished.json").exists()


def test_a_stopped_or_interrupted_run_leaves_no_record(tmp_path: Path) -> None:
    for name, is_interruption in (("stopped", False), ("interrupted", True)):
        stops = tiny.Recorder(
            lambda trainer, *_, how=is_interruption: (
                trainer.global_step == 5 and trainer.stop("enough", is_interruption=how)
            )
        )
        assert fit(tmp_path / name, stops).state == name
        assert not (tmp_path / name / "finished.json").exists()


def _other_run(file: Path) -> None:
    """Put the record of a run with other weights instead."""
    fit(file.parent.parent / "other", Watch(), seed=5)
    os.replace(file.parent.parent / "other" / "finished.json", file)


def _changed(**values: Any) -> Callable[[Path], None]:
    return lambda file: _write(file, json.dumps(json.loads(file.read_text()) | values))


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _link(file: Path) -> None:
    file.rename(file.with_name("kept"))
    file.symlink_to("kept")


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("change", "is_reported"),
    [
        (lambda file: _write(file, ""), True),
        (lambda file: _write(file, "[]"), True),
        (lambda file: _write(file, "{}"), True),
        (lambda file: _write(file, "[" * 100_000), True),
        (lambda file: _write(file, file.read_text()[:-20]), True),
        (_changed(metrics={}), True),
        (_changed(metrics={"mode": "min", "latest": {"val/loss": "0"}, "last": None, "best": None}), True),
        (_changed(loggers=[]), True),
        (_changed(loggers={"JSONLinesLogger": 3}), True),
        (_changed(plan={}), False),
        (_changed(manifest_sha256="0" * 64), False),
        (_other_run, False),
        (_link, True),
        (_pipe, True),
        (lambda file: (file.unlink(), file.mkdir()), True),
    ],
)
def test_a_damaged_or_foreign_record_is_ignored(
    change: Callable[[Path], Any], is_reported: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = fit(tmp_path / "run", Watch())
    change(tmp_path / "run" / "finished.json")
    caplog.clear()
    watch = Watch()
    with caplog.at_level(logging.WARNING):
        again = fit(tmp_path / "run", watch, ckpt_path="last")
    assert watch.calls == ["fit starts", "validates", "fit ends"]
    assert facts(again) == facts(first)
    said = [text for text in caplog.messages if "the last validation is repeated." in text]
    assert len(said) == is_reported and all(len(text) < 400 and "\n" not in text for text in said)


def test_a_record_that_cannot_be_written_does_not_fail_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "finished.json").mkdir()
    assert fit(tmp_path, Watch()).state == "completed"
    assert "finished.json: cannot be written (IsADirectoryError" in caplog.text
