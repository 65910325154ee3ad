"""Values that a callback logs during a validation are part of its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from loopwright import Callback, Checkpointing, LoopCallback, Trainer, TrainingLoop
from loopwright.errors import CheckpointError, SettingError


class Names(Callback):
    """Logs a value for each validation set, and records the names of the sets."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def on_enter_validate(self, trainer: Trainer, stack: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        self.seen.append(trainer.validation_name)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append(trainer.validation_name)

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: LoopCallback) -> None:
        trainer.log_metrics(**{f"{trainer.validation_name}/own": torch.tensor(len(self.seen))})


def test_a_callback_learns_the_name_and_its_values_are_returned() -> None:
    names = Names()
    sets = {"a": tiny.batches(2), "b": tiny.batches(1)}
    with tiny.trainer(TrainingLoop(num_steps=1), callbacks=[names]) as trainer:
        result = trainer.fit(tiny.batches(), sets)
        validated = trainer.validate(sets)
        rows = trainer.validate_all(sets)
    assert names.seen == [None, *["val/a", "val/b"] * 3]
    assert (result.metrics["val/a/own"], result.metrics["val/b/own"]) == (2, 3)
    names_of_sets = [f"val/{name}/{key}" for name in "ab" for key in ("loss", "error", "own")]
    assert list(validated) == [*names_of_sets, "val/loss", "val/error", "val/own"]
    assert [row.metrics["val/a/own" if row.dataloader == "val/a" else "val/b/own"] for row in rows] == [6, 7]


def test_a_callback_knows_which_checkpoint_is_validated(tmp_path: Path) -> None:
    seen: list[Path | None] = []

    class Seen(Callback):
        def on_enter_validate(self, trainer: Trainer, stack: Any, val_dataloader: Any, loop: LoopCallback) -> None:
            seen.append(trainer.validation_checkpoint)

        def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
            if loop_idx is None:
                trainer.validate(data, ckpt_path=paths[0])
                seen.append(trainer.validation_checkpoint)

    data = {"a": tiny.batches(1)}
    with tiny.trainer(TrainingLoop(num_steps=1), callbacks=[Seen()]) as trainer:
        trainer.fit(tiny.batches(), data)
        paths = [trainer.save_checkpoint(tmp_path / name) for name in ("first", "second")]
        trainer.validate(data, ckpt_path=paths[1])
        trainer.validate_all(data, [paths[1]])
        with pytest.raises(CheckpointError):
            trainer.validate(data, ckpt_path=tmp_path / "none")
        assert trainer.validation_checkpoint is None
    assert seen == [None, paths[1], paths[1], paths[0], paths[1]]


def test_a_scheduler_can_step_with_a_logged_value() -> None:
    plateau = {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau, "monitor": "val/a/own"}
    with tiny.trainer(TrainingLoop(num_steps=2), callbacks=[Names()], schedulers=[plateau]) as trainer:
        trainer.fit(tiny.batches(), {"a": tiny.batches(1)})


LISTS = [list(batch) for batch in tiny.batches(4)]  # as the default collate function of torch returns batches


def test_a_checkpoint_of_this_run_is_given_by_its_step(tmp_path: Path) -> None:
    data = tiny.batches(2)
    with tiny.trainer(TrainingLoop(num_steps=2), checkpoint=Checkpointing(every_n_steps=1), run_dir=tmp_path) as each:
        each.fit(tiny.batches(), data)
        expected = each.validate(data, ckpt_path=tmp_path / "checkpoints" / "step_00000001")
        assert each.validate(data, ckpt_path=1) == expected
        with pytest.raises(CheckpointError, match="step_00000007: no such folder"):
            each.predict(data, ckpt_path=7)
    with tiny.trainer() as each, pytest.raises(SettingError, match="ckpt_path=1: expected a path"):
        each.validate(data, ckpt_path=1)


SIZES = ([torch.ones(3, 2, 2), torch.ones(3, 4, 4)], [torch.ones(1), torch.ones(1)])  # a batch of images and targets


@pytest.mark.parametrize(
    "val",
    [LISTS, [*LISTS[:1], *tiny.batches(4)[1:]], [[torch.ones(3)]], 2 * [SIZES], 2 * [SIZES[:1]], 2 * [list(SIZES)]],
)
def test_a_list_of_lists_of_tensors_is_refused(val: Any) -> None:
    with tiny.trainer() as each, pytest.raises(SettingError, match="may be batches or validation sets"):
        each.validate(val)


def test_mappings_are_batches_even_if_their_tensors_are_in_lists() -> None:
    class Mean(tiny.Regression):
        def forward(self, batch: Any) -> Any:
            return {"loss": torch.stack([each.mean() for each in batch["images"]]).mean(), "num_items": 2}

    with tiny.trainer(model=Mean) as each:
        assert each.validate(2 * [{"images": SIZES[0]}]) == {"val/loss": 1.0}


def test_a_mapping_says_that_they_are_batches() -> None:
    with tiny.trainer() as each:
        assert each.validate({"val": LISTS}) == each.validate(tiny.batches(4))
