"""The file with which a sweep ends one of its jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from loopwright import Callback, TrainingLoop
from loopwright.experiment.rundir.stop_file import INTERRUPT, PRUNER, StopFile, read_stop_file, write_stop_file


class Writer(Callback):
    """Writes the file ``stop`` before the validation that follows a step."""

    def __init__(self, directory: Path, by: str, step: int) -> None:
        self.directory, self.by, self.step = directory, by, step

    def on_validate_start(self, trainer: Any, *_: object) -> None:
        if trainer.global_step == self.step:
            write_stop_file(self.directory, self.by, "worse than the others")


def fit(directory: Path, by: str, step: int) -> Any:
    callbacks = {"writer": Writer(directory, by, step), PRUNER: StopFile(directory)}
    loop = TrainingLoop(max_steps=6, eval_frequency=2)
    with tiny.trainer(loop, callbacks=callbacks) as trainer:
        result = trainer.fit(tiny.batches(), tiny.batches(2))
        return result, trainer.stopped_by, trainer.stop_reason


def test_a_pruned_run_stops_after_the_validation(tmp_path: Path) -> None:
    result, by, reason = fit(tmp_path, PRUNER, 2)
    assert (result.state, result.global_step, by, reason) == ("stopped", 2, "pruner", "worse than the others")


def test_a_run_that_has_reached_its_end_is_not_pruned(tmp_path: Path) -> None:
    result, by, _ = fit(tmp_path, PRUNER, 6)
    assert (result.state, result.global_step, by) == ("completed", 6, None)


def test_an_interrupted_run_ends_as_after_sigterm(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        fit(tmp_path, INTERRUPT, 4)
    assert raised.value.code == 143


@pytest.mark.parametrize(("by", "ends_at"), [(INTERRUPT, 4), (PRUNER, None)])
def test_at_log_steps_only_an_interrupt_ends_the_run(tmp_path: Path, by: str, ends_at: int | None) -> None:
    steps: list[int] = []

    class Early(Callback):
        def on_train_batch_end(self, trainer: Any, *_: object) -> None:
            steps.append(trainer.global_step)
            if trainer.global_step == 3:
                write_stop_file(tmp_path, by, "x")

    callbacks = {"early": Early(), PRUNER: StopFile(tmp_path, every_n_steps=2)}
    with tiny.trainer(TrainingLoop(max_steps=6, eval_frequency=None), callbacks=callbacks) as trainer:
        if ends_at is None:
            trainer.fit(tiny.batches())
        else:
            with pytest.raises(SystemExit):
                trainer.fit(tiny.batches())
    assert steps[-1] == (ends_at or 6)


def test_a_file_that_cannot_be_read_interrupts(tmp_path: Path) -> None:
    (tmp_path / "stop").symlink_to("elsewhere")
    assert read_stop_file(tmp_path) == (INTERRUPT, "")
    (tmp_path / "stop").unlink()
    (tmp_path / "stop").write_text("{")
    assert read_stop_file(tmp_path) == (INTERRUPT, "")
