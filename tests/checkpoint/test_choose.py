"""`choose` finds the best and the newest checkpoint of a run on the disk, and says which it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loopwright import Callback, Checkpointing, Trainer, TrainingLoop
from loopwright.checkpoint import choose, within
from loopwright.errors import CheckpointError
from tiny import batches, trainer

SCORES = {2: 0.5, 4: 0.1, 6: 0.3, 8: 0.4}


class Scores(Callback):
    """Logs a score for each validated step."""

    def on_validate_end(self, trainer: Trainer, model: Any, loop: Any) -> None:
        if trainer.global_step in SCORES:
            trainer.log_metrics(**{"val/score": SCORES[trainer.global_step]})


def fit(run_dir: Path, *, mode: str = "min", num_steps: int = 8, validates: bool = True) -> None:
    settings = Checkpointing(keep_last=1, monitor="val/score", mode=mode) if validates else Checkpointing()
    loop = TrainingLoop(num_steps=num_steps, eval_frequency=2)
    with trainer(loop, run_dir=run_dir, checkpoint=settings, callbacks=[Scores()]) as each:
        each.fit(batches(), {"val": batches(2)} if validates else None)


@pytest.mark.parametrize(("mode", "best"), [("min", 4), ("max", 2)])
def test_the_best_is_read_from_the_run(tmp_path: Path, mode: str, best: int) -> None:
    fit(tmp_path, mode=mode)
    folder = tmp_path / "checkpoints" / f"step_{best:08d}"
    assert choose(tmp_path / "best") == (folder, f"best val/score {SCORES[best]}")
    assert choose(tmp_path, prefers_best=True) == choose(tmp_path / "best")
    newest = tmp_path / "checkpoints" / "step_00000008"
    assert choose(tmp_path) == choose(tmp_path / "last") == (newest, "newest checkpoint")
    assert choose(newest, prefers_best=True) == (newest, "as given")


def test_a_best_last_step_is_read_from_the_file_of_a_finished_run(tmp_path: Path) -> None:
    fit(tmp_path, mode="min", num_steps=4)
    assert choose(tmp_path / "best").folder.name == "step_00000004"
    (tmp_path / "finished.json").unlink()  # the checkpoint of step 4 does not contain the validation of this step
    assert choose(tmp_path / "best").folder.name == "step_00000002"


def test_another_trainer_validates_the_best(tmp_path: Path) -> None:
    fit(tmp_path)
    with trainer(run_dir=tmp_path, checkpoint=Checkpointing(monitor="val/score", mode="min")) as each:
        metrics = each.validate(batches(2), ckpt_path="best")
        assert metrics == each.validate(batches(2), ckpt_path=tmp_path / "checkpoints" / "step_00000004")
        assert metrics == each.validate(batches(2), ckpt_path=tmp_path / "best")


def test_without_a_validated_step_there_is_no_best(tmp_path: Path) -> None:
    fit(tmp_path, validates=False)
    with pytest.raises(CheckpointError, match="no best checkpoint is known: no validated step of this run has"):
        choose(tmp_path / "best")
    assert choose(tmp_path, prefers_best=True).reason == "newest checkpoint"


@pytest.mark.parametrize(
    "mark", [3, {"name": 1, "value": 0.1, "step": 4}, {"name": "a", "value": 0.1, "step": -1}, None]
)
def test_a_damaged_mark_is_no_best(tmp_path: Path, mark: Any) -> None:
    fit(tmp_path)
    file = tmp_path / "finished.json"
    found = json.loads(file.read_text())
    found["metrics"]["best_saved"] = mark
    file.write_text(json.dumps(found))
    assert choose(tmp_path, prefers_best=True).reason == "newest checkpoint"


def test_a_folder_with_this_name_comes_first(tmp_path: Path) -> None:
    fit(tmp_path / "best")
    assert choose(tmp_path / "best").reason == "newest checkpoint"


def test_paths_of_a_run() -> None:
    assert within(Path("run"), None) == Path("run")
    assert within(Path("run"), "best") == Path("run/best")
    assert within(Path("run"), "other/run") == Path("other/run")
