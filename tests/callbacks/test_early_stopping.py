"""Early stopping: at the right validation, of a whole round, and the same wherever a run is cut."""

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
from loopwright.errors import CheckpointError, SettingError
from loopwright.hooks import HOOKS, implements


class Scores(Callback):
    """Logs ``val/score`` for each validation, by its step."""

    def __init__(self, scores: Mapping[int, float]) -> None:
        self.scores = scores

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: Any) -> None:
        trainer.log_metrics(**{f"{trainer.validation_name}/score": self.scores[trainer.global_step]})


class Probe(ValidationCallback):
    """A downstream validation that logs ``<name>/score``, each time the same."""

    def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
        trainer.log_metrics(**{f"{self.name}/score": 1.0})


def val() -> DataLoader[Any]:
    return DataLoader(tiny.rows(8), batch_size=4)


def fit(
    *callbacks: Callback, num_steps: int = 12, eval_frequency: int = 2, val_dataloader: Any = None, **settings: Any
) -> tuple[FitResult, Trainer]:
    loop = TrainingLoop(num_steps=num_steps, eval_frequency=eval_frequency)
    with tiny.trainer(loop, callbacks=callbacks, **settings) as ours:
        return ours.fit(tiny.batches(), val() if val_dataloader is None else val_dataloader), ours


def scored(*scores: float, **settings: Any) -> tuple[FitResult, Trainer]:
    """A fit that is validated after every second step, with these scores."""
    stopping = EarlyStopping("val/score", **settings)
    return fit(stopping, Scores(dict(zip(range(2, 99, 2), scores, strict=False))))


def test_it_stops_after_patience_validations_without_improvement() -> None:
    result, ours = scored(5, 4, 4, 3, 3.5, 3, patience=2)
    assert (result.state, result.global_step) == ("stopped", 12)
    assert ours.stop_reason == (
        "val/score is 3 after step 12; the best, 3 after step 8, was not improved in 2 validations"
    )
    assert scored(5, 4, 3, 2, 1, 0, patience=1)[0].state == "completed"
    assert scored(5, 4, 3, 2, 1, 0, patience=1, mode="max")[0].global_step == 4


def test_what_is_worse_than_the_threshold_or_not_finite_ends_the_fit_at_once() -> None:
    assert scored(5, 4, 9, 3, 2, 1, patience=9, divergence_threshold=8)[0].global_step == 6
    assert scored(5, float("nan"), 3, 2, 1, 0, patience=9)[0].global_step == 4


def test_a_whole_round_is_validated_before_it_stops() -> None:
    """Also what is logged by callbacks after it, sets after the one it watches, and downstream validations."""
    sets = {"a": tiny.batches(1), "b": tiny.batches(1)}
    scores = Scores(dict.fromkeys(range(13), 1.0))
    probe = Probe(name="probe")
    result, _ = fit(EarlyStopping("val/a/score", patience=1), scores, probe, val_dataloader=sets)
    assert result.global_step == 4
    assert {"val/a/score", "val/b/score", "val/b/loss", "probe/score"} <= result.metrics.keys()


@pytest.mark.parametrize("name", ["probe", "val/probe"])
def test_a_downstream_metric_counts_in_the_rounds_that_it_is_due(name: str) -> None:
    result, _ = fit(EarlyStopping(f"{name}/score", patience=2), Probe(every_n_vals=2, name=name), num_steps=20)
    assert result.global_step == 12  # due after 4, 8, 12, …


@pytest.mark.parametrize("monitor", ["val/los", "train/loss"])
def test_a_metric_that_no_validation_logs_is_said_after_the_first(monitor: str) -> None:
    with pytest.raises(SettingError) as caught:
        fit(EarlyStopping(monitor), log_every_n_steps=1)
    hint = " Did you mean val/loss?"
    assert str(caught.value) == (
        f"EarlyStopping.monitor={monitor}: expected a metric of the validations: val/loss, val/error.{hint}"
    )


def test_a_metric_of_a_downstream_validation_is_missed_when_that_has_run() -> None:
    steps: list[int] = []
    note = tiny.Recorder(lambda trainer, batch, batch_idx: steps.append(trainer.global_step))
    probe = Probe(every_n_vals=3, name="probe")
    with pytest.raises(SettingError, match=r"val/loss, val/error, probe/score\. Did you mean probe/score\?"):
        fit(note, EarlyStopping("probe/scores"), probe)
    assert steps[-1] == 6


def test_a_fit_without_validations_is_refused_when_it_starts() -> None:
    ours = tiny.trainer(TrainingLoop(num_steps=4), callbacks=[EarlyStopping()])
    before = tiny.weights(ours)
    with pytest.raises(SettingError, match=r"^EarlyStopping\.monitor=val/loss: .* this fit has none; give val_datal"):
        ours.fit(tiny.batches())
    assert ours.global_step == 0 and tiny.is_bitwise_equal(tiny.weights(ours), before)


def test_an_error_in_a_validation_is_not_hidden_by_a_missing_metric() -> None:
    class Fails(Callback):
        def on_validate_start(self, *_: Any) -> None:
            raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        fit(Fails(), EarlyStopping())


def test_validations_apart_from_those_of_the_plan_do_not_count(tmp_path: Path) -> None:
    watched = val()

    class Validates(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.validate_all({"other": val()})
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "second")
            if trainer.global_step >= 2:
                trainer.validate_all(watched, [tmp_path / "second"])
            if trainer.global_step % 2:
                trainer.validate_all(watched)
                trainer.validate(watched)

    scores = Scores({**dict.fromkeys(range(13), 9.0), 2: 5.0, 4: 6.0, 6: 4.0, 8: 5.0, 10: 5.0})
    result, _ = fit(EarlyStopping("val/score", patience=2), Validates(), scores, val_dataloader=watched)
    assert result.global_step == 10


def test_every_fit_is_watched_from_its_beginning_by_any_trainer_and_closed_twice() -> None:
    stopping = EarlyStopping(patience=1, min_delta=1e9)
    for _ in range(2):
        ours = tiny.trainer(TrainingLoop(num_steps=8, eval_frequency=2), callbacks=[stopping])
        ends = [ours.fit(tiny.batches(), val()).global_step for _ in range(2)]
        assert ends == [4, 8]
        ours.close()
        ours.close()


def test_between_validations_it_costs_nothing() -> None:
    heard = [hook for hook in HOOKS if implements(EarlyStopping(), hook)]
    assert heard == ["on_enter_fit", "on_fit_start", "on_enter_validate_all"]


# Cut and resumed


def build(folder: Path, *more: Callback, every_n_steps: int | None = None, **settings: Any) -> Trainer:
    """Without improvement after step 2, so that patience 3 ends it after step 8."""
    return tiny.trainer(
        TrainingLoop(num_steps=20, eval_frequency=2),
        callbacks=[EarlyStopping(min_delta=1e9, **settings), *more],
        checkpoint=Checkpointing(every_n_steps=every_n_steps),
        schedulers=[
            {"scheduler": partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=1), "monitor": "val/loss"}
        ],
        run_dir=folder,
    )


def facts(ours: Trainer, result: FitResult) -> list[Any]:
    (callback,) = (each for each in ours.callbacks if isinstance(each, EarlyStopping))
    told = [result.state, result.global_step, dict(result.metrics), result.best, ours.stop_reason]
    return [*told, callback.state_dict(), ours.schedulers[0].state_dict()]


@pytest.mark.parametrize("every_n_steps", [1, None])  # saved after step 8 before its validation, or after it
def test_a_run_that_was_stopped_is_over(every_n_steps: int | None, tmp_path: Path) -> None:
    straight = build(tmp_path, every_n_steps=every_n_steps)
    end = facts(straight, straight.fit(tiny.batches(), val()))
    assert end[:2] == ["stopped", 8] and "was not improved by more than 1e+09 in 3 validations" in end[4]
    trained: list[int] = []
    note = tiny.Recorder(lambda trainer, batch, batch_idx: trained.append(trainer.global_step))
    for _ in range(2):
        again = build(tmp_path, note, every_n_steps=every_n_steps)
        assert facts(again, again.fit(tiny.batches(), val(), ckpt_path=tmp_path)) == end
        assert tiny.is_bitwise_equal(tiny.weights(again), tiny.weights(straight))
    assert trained == []


@pytest.mark.parametrize("every_n_steps", [1, None])
def test_with_more_patience_it_is_the_run_that_had_it_from_the_start(every_n_steps: int | None, tmp_path: Path) -> None:
    build(tmp_path / "begun", every_n_steps=every_n_steps).fit(tiny.batches(), val())
    patient = build(tmp_path / "patient", patience=5, every_n_steps=every_n_steps)
    end = facts(patient, patient.fit(tiny.batches(), val()))
    assert end[:2] == ["stopped", 12]
    longer = build(tmp_path / "longer", patience=5, every_n_steps=every_n_steps)
    assert facts(longer, longer.fit(tiny.batches(), val(), ckpt_path=tmp_path / "begun")) == end
    assert tiny.is_bitwise_equal(tiny.weights(longer), tiny.weights(patient))


def test_weights_alone_begin_anew(tmp_path: Path) -> None:
    build(tmp_path / "begun").fit(tiny.batches(), val())
    again = build(tmp_path / "again")
    assert again.fit(tiny.batches(), val(), init_from=tmp_path / "begun").global_step == 8


def test_what_was_seen_of_another_metric_is_refused(tmp_path: Path) -> None:
    build(tmp_path).fit(tiny.batches(), val())
    with pytest.raises(CheckpointError, match=r"has monitor='val/loss', mode='min'; expected .*init_from begins a new"):
        build(tmp_path, monitor="val/error", mode="max").fit(tiny.batches(), val(), ckpt_path=tmp_path)
    for key in EarlyStopping().state_dict():
        lacking = {name: value for name, value in EarlyStopping().state_dict().items() if name != key}
        with pytest.raises(CheckpointError, match=r"^EarlyStopping: the checkpoint has .*; expected monitor, "):
            EarlyStopping().load_state_dict(lacking)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"monitor": 3}, "monitor=3: expected the name of a metric, such as 'val/loss'."),
        ({"monitor": " "}, "monitor=' ': expected the name of a metric, such as 'val/loss'."),
        ({"mode": "less"}, "mode='less': expected 'min' or 'max'."),
        ({"patience": 0}, "patience=0: expected a whole number of validations, 1 or more."),
        ({"patience": True}, "patience=True: expected a whole number of validations, 1 or more."),
        ({"min_delta": -1}, "min_delta=-1: expected a number, 0 or more."),
        ({"min_delta": float("nan")}, "min_delta=nan: expected a number, 0 or more."),
        ({"min_delta": "1"}, "min_delta='1': expected a number, 0 or more."),
        ({"divergence_threshold": float("inf")}, "divergence_threshold=inf: expected a number, or null for none."),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        EarlyStopping(**settings)
    assert str(caught.value) == said
