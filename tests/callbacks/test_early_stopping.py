"""Tests of `EarlyStopping`: the step at which it stops, whole rounds of validations, and resumed runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import tiny
from loopwright import Callback, Checkpointing, FitResult, Trainer, TrainingLoop, ValidationCallback
from loopwright.callbacks import EarlyStopping
from loopwright.checkpoint import steps_in
from loopwright.errors import CheckpointError, SettingError
from loopwright.hooks import HOOKS, implements


class Scores(Callback):
    """Logs ``<validation name>/score`` at each validation, from a mapping of steps to scores."""

    def __init__(self, scores: Mapping[int, float]) -> None:
        self.scores = scores

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: Any) -> None:
        trainer.log_metrics(**{f"{trainer.validation_name}/score": self.scores[trainer.global_step]})


class Probe(ValidationCallback):
    """A downstream validation that always logs 1.0 as ``<name>/score``."""

    def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
        trainer.log_metrics(**{f"{self.name}/score": 1.0})


def val_loader() -> DataLoader[Any]:
    return DataLoader(tiny.rows(8), batch_size=4)


def fit(
    *callbacks: Callback, num_steps: int = 12, eval_frequency: int = 2, val_dataloader: Any = None, **settings: Any
) -> tuple[FitResult, Trainer]:
    loop = TrainingLoop(num_steps=num_steps, eval_frequency=eval_frequency)
    with tiny.trainer(loop, callbacks=callbacks, **settings) as ours:
        return ours.fit(tiny.batches(), val_loader() if val_dataloader is None else val_dataloader), ours


def scored(*scores: float, **settings: Any) -> tuple[FitResult, Trainer]:
    """Run a fit with a validation after every second step; ``scores`` are the values of ``val/score``."""
    stopping = EarlyStopping("val/score", **{"mode": "min"} | settings)
    return fit(stopping, Scores(dict(zip(range(2, 99, 2), scores, strict=False))))


def test_it_stops_after_patience_validations_without_improvement() -> None:
    result, ours = scored(5, 4, 4, 3, 3.5, 3, patience=2)
    assert (result.state, result.global_step) == ("stopped", 12)
    assert ours.stop_reason == (
        "val/score is 3 after step 12; the best value, 3 after step 8, was not improved in 2 validations"
    )
    assert scored(5, 4, 3, 2, 1, 0, patience=1)[0].state == "completed"
    assert scored(5, 4, 3, 2, 1, 0, patience=1, mode="max")[0].global_step == 4


def test_a_metric_that_is_worse_than_the_threshold_or_not_finite_ends_the_fit_at_once() -> None:
    assert scored(5, 4, 9, 3, 2, 1, patience=9, divergence_threshold=8)[0].global_step == 6
    assert scored(5, float("nan"), 3, 2, 1, 0, patience=9)[0].global_step == 4


def test_the_round_of_validations_is_completed_before_the_fit_stops() -> None:
    """Later callbacks, later validation sets and downstream validations still log their metrics."""
    sets = {"a": tiny.batches(1), "b": tiny.batches(1)}
    scores = Scores(dict.fromkeys(range(13), 1.0))
    probe = Probe(name="probe")
    result, _ = fit(EarlyStopping("val/a/score", "min", patience=1), scores, probe, val_dataloader=sets)
    assert result.global_step == 4
    assert {"val/a/score", "val/b/score", "val/b/loss", "probe/score"} <= result.metrics.keys()


@pytest.mark.parametrize("name", ["probe", "val/probe"])
def test_a_downstream_metric_is_checked_only_in_rounds_with_its_validation(name: str) -> None:
    result, _ = fit(EarlyStopping(f"{name}/score", "min", patience=2), Probe(every_n_vals=2, name=name), num_steps=20)
    assert result.global_step == 12  # the downstream validation runs after steps 4, 8, 12, …


@pytest.mark.parametrize("monitor", ["val/los", "train/loss"])
def test_a_metric_that_no_validation_logs_is_an_error_after_the_first_round(monitor: str) -> None:
    scores = Scores(dict.fromkeys(range(9), 1))  # a callback of the user, which may log any metric
    with pytest.raises(SettingError) as caught:
        fit(EarlyStopping(monitor, "min"), scores, log_every_n_steps=1)
    expected = "expected a metric that the validations log: val/loss, val/error, val/score. Did you mean val/loss?"
    assert str(caught.value) == f"EarlyStopping.monitor={monitor}: {expected}"


def test_a_metric_that_only_the_model_can_log_is_an_error_before_the_first_step() -> None:
    with pytest.raises(SettingError) as caught:
        fit(EarlyStopping("val/los", "min"))
    expected = "no such metric. Available: val/loss, val/error. Did you mean val/loss?"
    assert str(caught.value) == f"EarlyStopping.monitor='val/los': {expected}"


def test_a_missing_downstream_metric_is_an_error_after_the_first_downstream_validation() -> None:
    steps: list[int] = []
    note = tiny.Recorder(lambda trainer, batch, batch_idx: steps.append(trainer.global_step))
    probe = Probe(every_n_vals=3, name="probe")
    with pytest.raises(SettingError, match=r"val/loss, val/error, probe/score\. Did you mean probe/score\?"):
        fit(note, EarlyStopping("probe/scores", "max"), probe)
    assert steps[-1] == 6


def test_a_fit_without_validations_is_refused_before_its_first_step() -> None:
    ours = tiny.trainer(TrainingLoop(num_steps=4), callbacks=[EarlyStopping()])
    before = tiny.weights(ours)
    message = r"^EarlyStopping\.monitor=val/loss: .* this fit has no validations; give val_dataloader"
    with pytest.raises(SettingError, match=message):
        ours.fit(tiny.batches())
    assert ours.global_step == 0 and tiny.is_bitwise_equal(tiny.weights(ours), before)


def test_an_error_in_a_validation_is_not_hidden_by_a_missing_metric() -> None:
    class Fails(Callback):
        def on_validate_start(self, *_: Any) -> None:
            raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        fit(Fails(), EarlyStopping())


def test_validations_outside_the_plan_do_not_count(tmp_path: Path) -> None:
    watched = val_loader()

    class Validates(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.validate_all({"other": val_loader()})
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "second")
            if trainer.global_step >= 2:
                trainer.validate_all(watched, [tmp_path / "second"])
            if trainer.global_step % 2:
                trainer.validate_all(watched)
                trainer.validate(watched)

    scores = Scores({**dict.fromkeys(range(13), 9.0), 2: 5.0, 4: 6.0, 6: 4.0, 8: 5.0, 10: 5.0})
    result, _ = fit(EarlyStopping("val/score", "min", patience=2), Validates(), scores, val_dataloader=watched)
    assert result.global_step == 10


def test_each_fit_and_each_trainer_starts_with_an_empty_history() -> None:
    stopping = EarlyStopping(patience=1, min_delta=1e9)
    for _ in range(2):
        ours = tiny.trainer(TrainingLoop(num_steps=8, eval_frequency=2), callbacks=[stopping])
        ends = [ours.fit(tiny.batches(), val_loader()).global_step for _ in range(2)]
        assert ends == [4, 8]
        ours.close()
        ours.close()


def test_it_implements_no_hook_of_a_training_step() -> None:
    implemented = [hook for hook in HOOKS if implements(EarlyStopping(), hook)]
    assert implemented == ["on_enter_fit", "on_fit_start", "on_enter_validate_all"]


# Checkpoints, and resumed runs


def test_the_best_step_and_the_last_step_of_a_stopped_run_have_checkpoints(tmp_path: Path) -> None:
    ours = tiny.trainer(
        TrainingLoop(num_steps=100, eval_frequency=2),
        callbacks=[EarlyStopping("val/score", mode="min", patience=2), Scores({2: 0.2, 4: 0.1, 6: 0.3, 8: 0.4})],
        checkpoint=Checkpointing(every_n_steps=10, keep_last=1, monitor="val/score", mode="min"),
        run_dir=tmp_path,
    )
    result = ours.fit(tiny.batches(), val_loader())
    assert (result.state, result.global_step) == ("stopped", 8)
    assert result.best is not None and result.best.step == 4
    assert steps_in(tmp_path) == {4, 8}
    assert ours.validate(val_loader(), ckpt_path="best")["val/score"] == 0.1


def build(folder: Path, *more: Callback, every_n_steps: int | None = None, **settings: Any) -> Trainer:
    """Build a trainer whose metric never improves after step 2, so that the default patience of 3 stops it at step 8.

    A step is saved before its validation if ``every_n_steps`` selects it, and after its validation if the run stops.
    ``more`` are further callbacks; ``settings`` are arguments of `EarlyStopping`.
    """
    return tiny.trainer(
        TrainingLoop(num_steps=20, eval_frequency=2),
        callbacks=[EarlyStopping(min_delta=1e9, **settings), *more],
        checkpoint=Checkpointing(every_n_steps=every_n_steps, at_validations=False),
        schedulers=[
            {"scheduler": partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=1), "monitor": "val/loss"}
        ],
        run_dir=folder,
    )


class Watch(Callback):
    """Notes the training steps and the validations of a fit."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.calls.append("trains")

    def on_validate_start(self, *_: Any) -> None:
        self.calls.append("validates")


def facts(ours: Trainer, result: FitResult) -> list[Any]:
    (callback,) = (each for each in ours.callbacks if isinstance(each, EarlyStopping))
    stop = [ours.stop_reason, ours.stopped_by]
    values = [result.state, result.global_step, dict(result.metrics), result.best, *stop]
    return [*values, callback.state_dict(), ours.schedulers[0].state_dict()]


@pytest.mark.parametrize("every_n_steps", [1, None])  # step 8 is saved before its validation, or after it
def test_resuming_a_stopped_run_neither_trains_nor_validates(
    every_n_steps: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight = build(tmp_path, every_n_steps=every_n_steps)
    end = facts(straight, straight.fit(tiny.batches(), val_loader()))
    assert end[:2] == ["stopped", 8] and "was not improved by more than 1e+09 in 3 validations" in end[4]
    assert end[5] == "EarlyStopping"
    for _ in range(2):
        watch = Watch()
        again = build(tmp_path, watch, every_n_steps=every_n_steps)
        assert facts(again, again.fit(tiny.batches(), val_loader(), ckpt_path=tmp_path)) == end
        assert tiny.is_bitwise_equal(tiny.weights(again), tiny.weights(straight))
        assert watch.calls == []
        (message,) = [text for text in caplog.messages if text.startswith("Nothing to train: ")]
        assert message.startswith("Nothing to train: EarlyStopping stopped this run at step 8 (val/loss is ")
        assert message.endswith(" in 3 validations). To continue, resume with patience=6 in EarlyStopping.")
        caplog.clear()


@pytest.mark.parametrize("every_n_steps", [1, None])
def test_a_run_resumed_with_more_patience_equals_a_straight_run_with_it(
    every_n_steps: int | None, tmp_path: Path
) -> None:
    build(tmp_path / "begun", every_n_steps=every_n_steps).fit(tiny.batches(), val_loader())
    straight = build(tmp_path / "straight", patience=5, every_n_steps=every_n_steps)
    end = facts(straight, straight.fit(tiny.batches(), val_loader()))
    assert end[:2] == ["stopped", 12]
    resumed = build(tmp_path / "resumed", patience=5, every_n_steps=every_n_steps)
    assert facts(resumed, resumed.fit(tiny.batches(), val_loader(), ckpt_path=tmp_path / "begun")) == end
    assert tiny.is_bitwise_equal(tiny.weights(resumed), tiny.weights(straight))


def test_a_run_that_starts_from_saved_weights_has_an_empty_history(tmp_path: Path) -> None:
    build(tmp_path / "begun").fit(tiny.batches(), val_loader())
    again = build(tmp_path / "again")
    assert again.fit(tiny.batches(), val_loader(), init_from=tmp_path / "begun").global_step == 8


def test_the_state_of_another_metric_or_an_incomplete_state_is_refused(tmp_path: Path) -> None:
    build(tmp_path).fit(tiny.batches(), val_loader())
    with pytest.raises(CheckpointError, match=r"has monitor='val/loss', mode='min'; expected .*, use init_from"):
        build(tmp_path, monitor="val/error", mode="max").fit(tiny.batches(), val_loader(), ckpt_path=tmp_path)
    for key in EarlyStopping().state_dict():
        incomplete = {name: value for name, value in EarlyStopping().state_dict().items() if name != key}
        with pytest.raises(
            CheckpointError, match=r"^EarlyStopping: the state in the checkpoint has .*; expected monitor, "
        ):
            EarlyStopping().load_state_dict(incomplete)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"monitor": 3}, "monitor=3: expected the name of a metric, such as 'val/loss'."),
        ({"monitor": " "}, "monitor=' ': expected the name of a metric, such as 'val/loss'."),
        ({"mode": "less"}, "mode='less': expected min or max."),
        ({"patience": 0}, "patience=0: expected a whole number of validations, 1 or more."),
        ({"patience": True}, "patience=True: expected a whole number of validations, 1 or more."),
        ({"min_delta": -1}, "min_delta=-1: expected a finite number, 0 or more."),
        ({"min_delta": float("nan")}, "min_delta=nan: expected a finite number, 0 or more."),
        ({"min_delta": "1"}, "min_delta='1': expected a finite number, 0 or more."),
        (
            {"divergence_threshold": float("inf")},
            "divergence_threshold=inf: expected a number, or null to turn it off.",
        ),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        EarlyStopping(**settings)
    assert str(caught.value) == message
