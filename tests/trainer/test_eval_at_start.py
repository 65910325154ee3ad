"""`eval_at_start`: a fit also validates before its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from loopwright import Callback, Checkpointing, Trainer, TrainingLoop, ValidationCallback
from loopwright.callbacks import EarlyStopping
from loopwright.loggers import JSONLinesLogger


class Validations(Callback):
    """Records the step and ``loop_idx`` of train loops, and the step of validations and saves."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def on_train_start(self, trainer: Trainer, model: Any, train_dataloader: Any, loop: Any, loop_idx: int) -> None:
        self.seen.append(("train", loop_idx))

    def on_validate_start(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append(("validate", trainer.global_step))

    def on_after_save_checkpoint(self, trainer: Trainer, ckpt_path: Path) -> None:
        self.seen.append(("save", trainer.global_step))


def loop(num_steps: int = 4, eval_frequency: int | None = 2) -> TrainingLoop:
    return TrainingLoop(num_steps=num_steps, eval_frequency=eval_frequency, eval_at_start=True)


def test_the_first_validation_is_saved_and_belongs_to_no_train_loop(tmp_path: Path) -> None:
    seen = Validations()
    checkpoint = Checkpointing(every_n_steps=None, at_validations=True)
    with tiny.trainer(loop(), callbacks=[seen], checkpoint=checkpoint, run_dir=tmp_path) as trainer:
        trainer.fit(tiny.batches(), tiny.batches(3))
    round_at = [[("save", step), ("validate", step)] for step in (0, 2, 4)]
    assert seen.seen == [*round_at[0], ("train", 0), *round_at[1], ("train", 1), *round_at[2]]


def test_weights_and_later_metrics_are_those_without_it(tmp_path: Path) -> None:
    for name, at_start in (("with", True), ("without", False)):
        settings = TrainingLoop(num_steps=4, eval_frequency=2, eval_at_start=at_start)
        loggers = [JSONLinesLogger()]
        with tiny.trainer(settings, model=tiny.NoisyRegression, loggers=loggers, run_dir=tmp_path / name) as trainer:
            trainer.fit(tiny.batches(), tiny.batches(3))
            trainer.save_checkpoint(tmp_path / name / "end")
    texts = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("with", "without")]
    assert [line for line in texts[0] if '"step": 0' not in line] == texts[1] and len(texts[0]) == len(texts[1]) + 2
    ends = [(tmp_path / name / "end" / "model.safetensors").read_bytes() for name in ("with", "without")]
    assert ends[0] == ends[1]


def test_it_validates_once_with_validation_off() -> None:
    seen = Validations()
    with tiny.trainer(loop(eval_frequency=None), callbacks=[seen]) as trainer:
        result = trainer.fit(tiny.batches(), tiny.batches(3))
    assert seen.seen == [("validate", 0), ("train", 0)]
    assert "val/loss" in result.metrics


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_resume_does_not_repeat_it(cut: int, tmp_path: Path) -> None:
    class StopAt(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == cut:
                trainer.stop("cut", is_interruption=True)

        def on_train_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == cut:
                trainer.stop("cut", is_interruption=True)

    checkpoint = Checkpointing(every_n_steps=1, at_validations=True)
    for name, callbacks in (("straight", []), ("cut", [StopAt()])):
        with tiny.trainer(
            loop(), callbacks=callbacks, checkpoint=checkpoint, loggers=[JSONLinesLogger()], run_dir=tmp_path / name
        ) as trainer:
            trainer.fit(tiny.batches(), tiny.batches(3))
    seen = Validations()
    with tiny.trainer(
        loop(), callbacks=[seen], checkpoint=checkpoint, loggers=[JSONLinesLogger()], run_dir=tmp_path / "cut"
    ) as trainer:
        trainer.fit(tiny.batches(), tiny.batches(3), ckpt_path="last")
    # The checkpoint of step 0 is saved before its validation, so a resume from it validates again.
    assert (("validate", 0) in seen.seen) == (cut == 0)
    assert [at for what, at in seen.seen if what == "save"].count(0) == 0
    names = ("straight", "cut")
    assert len({(tmp_path / name / "metrics.jsonl").read_text() for name in names}) == 1


def test_a_second_fit_validates_before_its_first_step() -> None:
    seen = Validations()
    data = tiny.batches()
    with tiny.trainer(loop(num_steps=2), callbacks=[seen]) as trainer:
        trainer.fit(data, tiny.batches(3))
        trainer.fit(data, tiny.batches(3))
    assert [step for what, step in seen.seen if what == "validate"] == [0, 2, 2, 4]


def test_it_counts_for_the_best_and_for_early_stopping(tmp_path: Path) -> None:
    stopping = EarlyStopping("val/loss", patience=1)
    with tiny.trainer(
        loop(eval_frequency=1),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, maximize=True),  # the loss only grows
        callbacks=[stopping],
        checkpoint=Checkpointing(monitor="val/loss", at_validations=True),
        run_dir=tmp_path,
    ) as trainer:
        result = trainer.fit(tiny.batches(), tiny.batches(3))
    assert result.best is not None and result.best.step == 0
    assert (result.state, result.global_step) == ("stopped", 1)
    assert (tmp_path / "checkpoints" / "step_00000000").is_dir()


def test_it_counts_neither_for_every_n_vals_nor_for_schedulers() -> None:
    calls: list[tuple[int | None, int]] = []

    class Second(ValidationCallback):
        def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
            calls.append((loop_idx, trainer.global_step))

    class Stepped(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: Any = None) -> None:
            stepped.append(float(metrics))
            super().step(metrics)

    stepped: list[float] = []
    plateau = {"scheduler": Stepped, "monitor": "val/loss"}
    callbacks = [Second(every_n_vals=2)]
    with tiny.trainer(loop(num_steps=6), callbacks=callbacks, schedulers=[plateau]) as trainer:
        trainer.fit(tiny.batches(), tiny.batches(3))
    assert calls == [(1, 4), (2, 6)]
    assert len(stepped) == 3


def test_without_validation_data_the_plan_says_that_it_has_no_effect() -> None:
    with tiny.trainer(loop(eval_frequency=None)) as trainer:
        plan = trainer.plan_fit(tiny.batches())
    assert "eval_at_start=true has no effect: there is no validation dataloader" in plan.notes
    assert not plan.validates_at_start


def test_several_sets_are_validated_and_their_mean_is_logged() -> None:
    with tiny.trainer(loop(eval_frequency=None)) as trainer:
        result = trainer.fit(tiny.batches(), {"a": tiny.batches(2), "b": tiny.batches(3)})
    assert result.metrics["val/loss"] == (result.metrics["val/a/loss"] + result.metrics["val/b/loss"]) / 2


def test_an_error_in_it_leaves_no_step_trained() -> None:
    data = [*tiny.batches(1), (torch.ones(3, 5), torch.ones(3, 1))]
    with tiny.trainer(loop()) as trainer, pytest.raises(RuntimeError) as caught:
        trainer.fit(tiny.batches(), data)
    assert trainer.global_step == 0
    assert any("val" in note for note in caught.value.__notes__)
