"""The run directory of a trainer: created, refused if it contains another run, and locked during a fit."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from loopwright import Callback, Checkpointing, Trainer, TrainingLoop
from loopwright.errors import CheckpointError, SettingError
from loopwright.loggers import CSVLogger, JSONLinesLogger, ProgressLogger
from loopwright.run_lock import hold
from tiny import Regression, batches, trainer


def logging(run_dir: Path, **settings: Any) -> Trainer:
    return trainer(TrainingLoop(num_steps=2), loggers=[JSONLinesLogger(), CSVLogger()], run_dir=run_dir, **settings)


class Answering(Regression):
    """Regression that also predicts."""

    def predict(self, batch: Any) -> Tensor:
        predicted: Tensor = self.layers(batch[0])
        return predicted


def num_lines(run_dir: Path) -> int:
    return len((run_dir / "metrics.jsonl").read_text().splitlines())


def test_the_directory_is_created_before_the_first_hook(tmp_path: Path) -> None:
    class Saving(Callback):
        def setup(self, ours: Trainer) -> None:
            assert ours.run_dir is not None
            (ours.run_dir / "image.png").touch()

    trainer(callbacks=[Saving()], run_dir=tmp_path / "a" / "b")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["image.png"]


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_directory_that_cannot_be_created_is_refused_by_the_trainer(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"^run_dir='.*': expected a directory that exists or can be created; "):
        trainer(run_dir=tmp_path / name)


def test_a_fit_does_not_add_to_the_metrics_of_another_run(tmp_path: Path) -> None:
    logging(tmp_path).fit(batches())
    before = num_lines(tmp_path)
    with pytest.raises(SettingError) as caught:
        logging(tmp_path).fit(batches())
    assert str(caught.value) == (
        f"run_dir={str(tmp_path)!r}: expected a directory without metrics of another run, found metrics.jsonl; name a "
        'new directory, or give Trainer(checkpoint=…), so that fit(…, ckpt_path="last") can resume the next run.'
    )
    assert num_lines(tmp_path) == before


def test_the_refusal_names_the_resume_if_the_other_run_saved_checkpoints(tmp_path: Path) -> None:
    logging(tmp_path, checkpoint=Checkpointing(1)).fit(batches())
    resumption = r'; name a new directory, or resume the other run with fit\(…, ckpt_path="last"\)\.$'
    with pytest.raises(SettingError, match=resumption):
        logging(tmp_path, checkpoint=Checkpointing(1)).fit(batches())
    resumed = logging(tmp_path, checkpoint=Checkpointing(1))
    assert resumed.fit(batches(), ckpt_path="last").global_step == 2


def test_two_trainers_of_one_process_are_two_runs(tmp_path: Path) -> None:
    first, second = logging(tmp_path), logging(tmp_path)
    first.fit(batches())
    with pytest.raises(SettingError, match=r"found metrics\.jsonl"):
        second.fit(batches())


def test_validating_and_predicting_are_allowed_in_the_directory_of_another_run(tmp_path: Path) -> None:
    logging(tmp_path).fit(batches())
    other = logging(tmp_path, model=Answering)
    assert other.validate(batches(2)) and other.predict(batches(2))


def test_a_trainer_may_validate_before_it_fits_and_fit_again(tmp_path: Path) -> None:
    ours = logging(tmp_path)
    ours.validate(batches(2))
    ours.fit(batches())
    ours.fit(batches())
    assert ours.global_step == 4


def test_loggers_without_files_do_not_matter(tmp_path: Path) -> None:
    logging(tmp_path).fit(batches())
    other = trainer(loggers=[ProgressLogger("off")], run_dir=tmp_path)
    assert other.fit(batches()).global_step == 5


def _hold(directory: Path, ready: Any, done: Any) -> None:
    with hold(directory):
        ready.set()
        done.wait(60)


def _in_another_process(directory: Path) -> tuple[Any, Any]:
    """Start a process that locks ``directory``, and return the process and the event that ends it."""
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(directory, ready, done))
    process.start()
    assert ready.wait(60)
    return process, done


def test_a_fit_in_a_directory_that_another_process_uses_is_refused(tmp_path: Path) -> None:
    ours = trainer(run_dir=tmp_path)
    process, done = _in_another_process(tmp_path)
    with pytest.raises(CheckpointError, match=f"in use by process {process.pid} on .*; wait until it ends"):
        ours.fit(batches())
    assert ours.validate(batches(2))
    done.set()
    process.join()
    assert ours.fit(batches()).global_step == 5


def _is_locked(directory: Path) -> bool:
    """Whether another process cannot lock the directory."""

    def attempt(result: Any) -> None:
        try:
            with hold(directory):
                result.value = 0
        except CheckpointError:
            result.value = 1

    context = multiprocessing.get_context("fork")
    result = context.Value("i", -1)
    process = context.Process(target=attempt, args=(result,))
    process.start()
    process.join()
    return bool(result.value)


def test_the_directory_is_locked_during_a_fit_and_free_afterwards(tmp_path: Path) -> None:
    found: list[bool] = []

    class Watching(Callback):
        def on_fit_start(self, ours: Trainer, *_: Any) -> None:
            with hold(tmp_path):  # as a second fit in this process would
                found.append(_is_locked(tmp_path))
            found.append(_is_locked(tmp_path))

    ours = trainer(callbacks=[Watching()], run_dir=tmp_path)
    ours.fit(batches())
    assert found == [True, True]
    assert not _is_locked(tmp_path)


def test_a_fit_in_a_held_directory_does_not_release_it(tmp_path: Path) -> None:
    """The command holds the directory in which its trainer fits."""
    with hold(tmp_path):
        trainer(run_dir=tmp_path).fit(batches())
        assert _is_locked(tmp_path)


def test_a_removed_directory_is_created_again_by_the_next_fit(tmp_path: Path) -> None:
    ours = trainer(run_dir=tmp_path / "run")
    (tmp_path / "run").rmdir()
    assert ours.fit(batches()).global_step == 5
