"""What a trainer shows to callbacks, and what happens if it is copied, pickled or printed."""

from __future__ import annotations

import copy
import logging
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from loopwright import Callback, Checkpointing, Precision, TrainingLoop, ValidationLoop
from loopwright.callbacks import EarlyStopping, ExponentialMovingAverage, LearningRateMonitor, StopOnNonFinite
from loopwright.errors import SettingError
from loopwright.loggers import JSONLinesLogger
from tiny import Regression, adamw, batches, is_bitwise_equal, rows, trainer, weights

SHIPPED = (EarlyStopping, ExponentialMovingAverage, LearningRateMonitor, StopOnNonFinite)


class Asking(Callback):
    """Notes the answers of the trainer to ``ask(trainer)`` in each batch of training and validation."""

    def __init__(self, ask: Any) -> None:
        self.ask = ask
        self.training: list[Any] = []
        self.validation: list[Any] = []

    def on_train_batch_start(self, ours: Any, model: Any, batch: Any, batch_idx: int) -> None:
        self.training.append(self.ask(ours))

    def on_train_batch_end(self, ours: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert self.ask(ours) == self.training[-1]

    def on_validate_batch_start(self, ours: Any, model: Any, batch: Any, batch_idx: int) -> None:
        self.validation.append(self.ask(ours))


def test_callbacks_are_found_by_their_class(tmp_path: Path) -> None:
    first, second, logger = EarlyStopping(), EarlyStopping(patience=9), JSONLinesLogger()
    ours = trainer(callbacks={"a": first, "b": LearningRateMonitor(), "c": second}, loggers=[logger], run_dir=tmp_path)
    assert ours.get_callback(EarlyStopping) is first
    assert ours.get_callbacks(EarlyStopping) == (first, second)
    assert ours.get_callback(JSONLinesLogger) is logger
    assert ours.get_callback(StopOnNonFinite) is None and ours.get_callbacks(StopOnNonFinite) == ()


def test_a_trainer_shows_its_settings_and_pythons_logger(tmp_path: Path) -> None:
    precision, saves = Precision(max_gradient_norm=1.0), Checkpointing()
    ours = trainer(precision=precision, checkpoint=saves, run_dir=tmp_path)
    assert ours.precision is precision and ours.checkpoint is saves
    assert ours.logger is logging.getLogger("loopwright")
    assert trainer().checkpoint is None


def test_the_first_and_the_final_micro_batch_of_each_loop_are_known() -> None:
    asking = Asking(lambda ours: (ours.is_first_iteration, ours.is_final_iteration, ours.should_run_optimizer_step))
    loop = TrainingLoop(num_steps=3, eval_frequency=2, grad_accum_steps=2)
    ours = trainer(loop, callbacks=[asking])
    ours.fit(batches(6), [batches(3)])
    first, middle, updates, last = (True, False, False), (False,) * 3, (False, False, True), (False, True, True)
    assert asking.training == [first, updates, middle, last, first, last]
    assert [answer[:2] for answer in asking.validation] == [(True, False), (False, False), (False, True)] * 2
    assert (ours.is_first_iteration, ours.is_final_iteration) == (False, False)


def test_a_name_scope_is_put_before_the_names_of_metrics() -> None:
    ours = trainer()
    with ours.name_scope("probe"), ours.name_scope("layer"):
        ours.log_metrics(norm=2.0)
    ours.log_metrics(norm=3)
    assert ours.metrics == {"probe/layer/norm": 2.0, "norm": 3.0}


def test_a_checkpoint_without_a_path_is_one_of_the_run(tmp_path: Path) -> None:
    class Saving(Callback):
        def on_train_batch_end(self, ours: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if ours.global_step in (2, 3, 4):
                assert ours.save_checkpoint() == tmp_path / "checkpoints" / f"step_{ours.global_step:08d}"

    ours = trainer(callbacks=[Saving()], checkpoint=Checkpointing(keep_last=2), run_dir=tmp_path)
    ours.fit(batches(5))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_00000004", "step_00000005"]
    with pytest.raises(SettingError, match=r"^path=null: this trainer has no checkpoint=Checkpointing"):
        trainer().save_checkpoint()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
def test_a_copy_of_a_trainer_is_refused_with_what_to_do_instead(copied: Any) -> None:
    ours = trainer(callbacks=[ExponentialMovingAverage()])
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^A Trainer cannot be copied or pickled\. Copy or pickle trainer\.model"):
            copied(ours)
        ours.fit(batches(5))


def test_a_model_can_be_copied_and_pickled_during_a_fit_a_validation_and_afterwards() -> None:
    copies: list[tuple[nn.Module, dict[str, Any]]] = []

    def take(ours: Any) -> None:
        copies.append((copy.deepcopy(ours.model), weights(ours)))
        copies.append((pickle.loads(pickle.dumps(ours.model)), weights(ours)))

    schedule = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1.0)
    shipped = [each() for each in SHIPPED]
    ours = trainer(callbacks=[*shipped, Asking(take)], optimizer=adamw, schedulers=[schedule])
    ours.fit(batches(5), DataLoader(rows(4)))
    take(ours)
    ours.close()
    take(ours)
    assert len(copies) == 2 * (10 + 4 + 2)
    for model, expected in copies:
        assert is_bitwise_equal(weights(model), expected)


@pytest.mark.parametrize(
    "settings",
    [TrainingLoop(max_steps=3, eval_frequency=0.5), ValidationLoop(3, hook="cloze"), Checkpointing(every_n_steps=5),
     Precision(max_gradient_norm=1.0)],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
def test_settings_can_be_copied_and_pickled(settings: Any) -> None:
    """Catches settings that cannot be sent to another process: loops held a `mappingproxy`."""
    for again in (copy.deepcopy(settings), pickle.loads(pickle.dumps(settings))):
        assert repr(again) == repr(settings)


def test_the_result_of_a_fit_can_be_pickled_and_its_text_lacks_the_plan() -> None:
    result = trainer().fit(batches(5))
    assert pickle.loads(pickle.dumps(result)) == result
    text = repr(result)
    assert text.startswith("FitResult(state='completed', global_step=5, ") and "Plan(" not in text


@pytest.mark.parametrize(
    ("loop", "text"),
    [
        (TrainingLoop(), "TrainingLoop()"),
        (TrainingLoop(max_steps=3, eval_frequency=1), "TrainingLoop(max_steps=3, eval_frequency=1)"),
        (ValidationLoop(), "ValidationLoop()"),
        (ValidationLoop(4, hook="cloze"), "ValidationLoop(eval_steps=4, hook='cloze')"),
        (type("Mine", (TrainingLoop,), {})(num_epochs=2), "Mine(num_epochs=2)"),
    ],
)
def test_a_loop_prints_the_settings_that_were_given(loop: Any, text: str) -> None:
    assert repr(loop) == text


@pytest.mark.parametrize(
    ("checkpoint", "text"),
    [
        (Checkpointing(), "Checkpointing()"),
        (Checkpointing(50, keep_last=3), "Checkpointing(every_n_steps=50, keep_last=3)"),
        (Checkpointing(monitor="val/f1", mode="max"), "Checkpointing(monitor='val/f1', mode='max')"),
    ],
)
def test_a_checkpointing_prints_the_settings_that_were_given(checkpoint: Checkpointing, text: str) -> None:
    assert repr(checkpoint) == text


def test_a_plan_prints_its_steps_and_intervals_on_one_line() -> None:
    ours = trainer(TrainingLoop(num_steps=5, eval_frequency=2))
    plan = ours.plan_fit(batches(), [batches(2), batches(1)])
    text = "stop_step=5, eval_every=2, val=['val/0', 'val/1'], num_saves=0)"
    assert repr(plan) == f"Plan(start_step=0, {text}"
    assert repr(plan.after(3)) == f"Plan(start_step=0, position=3, {text}"


def test_a_trainer_prints_its_main_settings_and_its_step(tmp_path: Path) -> None:
    ours = trainer(TrainingLoop(num_steps=5))
    expected = "model=Regression, optimizer=SGD, loop=TrainingLoop(num_steps=5), device='cpu', run_dir=None"
    assert repr(ours) == f"Trainer({expected}, global_step=0)"
    expected = (
        f"optimizer=None, loop=TrainingLoop(num_steps=5), device='cpu', run_dir={str(tmp_path)!r}, global_step=0)"
    )
    assert repr(trainer(optimizer=None, run_dir=tmp_path)).endswith(expected)


def test_the_steps_of_a_training_loop_are_not_taken_for_the_batches_of_a_validation() -> None:
    ours = trainer(TrainingLoop(num_steps=5))
    with pytest.raises(SettingError) as caught:
        ours.validate([batches(8)], loop=TrainingLoop(max_steps=3))
    assert str(caught.value) == (
        "loop=TrainingLoop(max_steps=3): expected eval_steps, as the steps of a TrainingLoop do not limit a "
        "validation; use ValidationLoop(eval_steps=3), or ValidationLoop() for all batches."
    )
    with pytest.raises(SettingError, match="expected eval_steps"):
        ours.validate_all([batches(8)], loop=TrainingLoop(num_steps=3))
    for loop in (ours.loop, None, TrainingLoop(max_steps=3, eval_steps=2), TrainingLoop(num_epochs=1)):
        assert "val/loss" in str(ours.validate(DataLoader(rows(8)), loop=loop))


@pytest.mark.parametrize("value", ["x", "3", None, [1.0], 10**400], ids=["x", "3", "None", "list", "int"])
def test_a_value_that_cannot_be_logged_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^a=.*: expected a number or a scalar tensor to be logged\.$"):
        trainer().log_metrics(b=1.0, a=value)


@pytest.mark.parametrize("name", ["parameters", "named_parameters"])
def test_an_optimizer_factory_that_expects_a_model_is_told_what_it_gets(name: str) -> None:
    with pytest.raises(SettingError, match=r"^optimizer=<lambda>: the callable gets model\.parameters\(\)") as caught:
        trainer(optimizer=lambda model: torch.optim.SGD(getattr(model, name)(), lr=0.1))
    assert "lambda parameters: AdamW(parameters, lr=0.001)" in str(caught.value)

    def broken(parameters: Any) -> Any:
        raise AttributeError("mine")

    with pytest.raises(AttributeError, match="mine"):
        trainer(model=Regression, optimizer=broken)
