"""Monitored metrics of a fit: which are refused before its first step, and which after its first validations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from loopwright import Callback, Checkpointing, Logger, TrainingLoop, ValidationCallback
from loopwright.callbacks import EarlyStopping, LearningRateMonitor
from loopwright.errors import SettingError
from loopwright.models import MLP
from tiny import Regression, batches, trainer

SETS = {"web": batches(2), "books": batches(3)[2:]}


class Gap(Callback):
    """Logs ``gap`` in training, and ``val/gap/loss`` in a round of validations."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.log_metrics(gap=1.0 / trainer.global_step)

    def on_validate_end(self, trainer: Any, *_: Any) -> None:
        trainer.log_metrics(**{"val/gap/loss": 1.0 / trainer.global_step})


class Objective(Callback):
    """Names the result of the run and logs it."""

    def __init__(self, objective: str) -> None:
        self.objective = objective

    def on_validate_end(self, trainer: Any, *_: Any) -> None:
        trainer.log_metrics(**{self.objective: 1.0 / trainer.global_step})


class Untried(Logger):
    """Receives each validation batch before the model does."""

    def log_metrics(self, metrics: Any, step: int) -> None:
        pass

    def on_validate_step_start(self, *_: Any) -> None:
        pass


class OwnLoop(TrainingLoop):
    """A loop of the user, which may log any metric."""


class Probe(ValidationCallback):
    """A downstream validation that logs ``probe/score``."""

    def run_validation(self, trainer: Any, loop_idx: int | None, is_last: bool) -> None:
        trainer.log_metrics(**{"probe/score": 1.0 * trainer.global_step})


class Accuracy(Regression):
    """Returns an accuracy too, which falls as it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("num_batches", torch.zeros(()))

    def forward(self, batch: Any) -> dict[str, Any]:
        if self.training:
            self.num_batches += 1
        return {**super().forward(batch), "accuracy": 1 / self.num_batches}


def make(run_dir: Path, monitor: str | None = None, callbacks: Any = (), mode: str = "min", **settings: Any) -> Any:
    checkpoint = Checkpointing(monitor=monitor, mode=mode)
    loop = settings.pop("loop", TrainingLoop(num_steps=4, eval_frequency=2))
    return trainer(loop, callbacks=callbacks, checkpoint=checkpoint, run_dir=run_dir, **settings)


@pytest.mark.parametrize(
    ("monitor", "sets", "message"),
    [
        ("loss", batches(2), r"^checkpoint\.monitor='loss': expected .* train/ or val/\. Did you mean val/loss\?$"),
        (
            "val/wob/loss",
            SETS,
            r"^checkpoint\.monitor='val/wob/loss': no such .* val/web, val/books, .* val/web/loss\?$",
        ),
    ],
)
def test_a_monitor_that_cannot_come_is_refused_before_the_first_step(
    tmp_path: Path, monitor: str, sets: Any, message: str
) -> None:
    """It ran through, with ``best=None``."""
    with make(tmp_path / "run", monitor, [LearningRateMonitor()]) as ours:
        with pytest.raises(SettingError, match=message):
            ours.plan_fit(batches(8), sets)
        with pytest.raises(SettingError, match=message):
            ours.fit(batches(8), sets)
        assert ours.global_step == 0


def test_so_are_the_monitors_of_schedulers_and_of_early_stopping() -> None:
    loop = TrainingLoop(num_steps=4, eval_frequency=2)
    plateau = {"scheduler": ReduceLROnPlateau, "monitor": "train/loss"}
    with trainer(loop, schedulers=plateau) as ours, pytest.raises(SettingError, match=r"^monitor='train/loss': "):
        ours.plan_fit(batches(8), batches(2))
    with trainer(loop, callbacks=[EarlyStopping("val/foo/loss")]) as ours:
        with pytest.raises(SettingError, match=r"^EarlyStopping\.monitor='val/foo/loss': no such validation set"):
            ours.plan_fit(batches(8), SETS)


@pytest.mark.parametrize("monitor", ["val/nope", "val/web/nope"])
def test_an_output_that_the_model_lacks_is_refused_after_the_first_validations(tmp_path: Path, monitor: str) -> None:
    """The first batches are not tried, because `Untried` can change them. The step is saved."""
    with make(tmp_path, monitor, loggers=[Untried()]) as ours:
        with pytest.raises(SettingError, match=rf"^checkpoint\.monitor='{monitor}': no such metric\. Available: val/"):
            ours.fit(batches(8), SETS)
        assert ours.global_step == 2 and (tmp_path / "checkpoints" / "step_00000002").is_dir()


def test_a_metric_that_no_step_logged_is_named_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with make(tmp_path, "train/los") as ours:
        assert ours.fit(batches(8), batches(2)).best is None
    assert "checkpoint.monitor='train/los': no such metric was logged. Did you mean train/loss?" in caplog.messages


@pytest.mark.parametrize("monitor", ["gap", "val/gap/loss"])
def test_a_metric_that_only_a_callback_of_the_user_may_log_is_accepted(
    tmp_path: Path, monitor: str, caplog: pytest.LogCaptureFixture
) -> None:
    with make(tmp_path, monitor, [Gap()], log_every_n_steps=1) as ours:
        best = ours.fit(batches(8), SETS).best
        assert best is not None and best.name == monitor
    (line,) = caplog.messages
    assert line.startswith(f"checkpoint.monitor={monitor!r}: ") and line.endswith(
        " The metric is missing unless Gap logs it."
    )


@pytest.mark.parametrize("metric", ["gap", "val/gap"])
def test_a_metric_that_two_settings_name_is_reported_once(
    tmp_path: Path, metric: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning was logged for the objective and again for the checkpoints."""
    with make(tmp_path, metric, [Objective(metric)]) as ours:
        assert ours.fit(batches(8), batches(2)).best.name == metric
    (line,) = caplog.messages
    assert line.startswith(f"objective={metric!r}: ") and line.endswith(" unless Objective logs it.")


def test_a_loop_of_the_user_may_log_a_metric_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with make(tmp_path, "gap", loop=OwnLoop(num_steps=4, eval_frequency=2)) as ours:
        ours.fit(batches(8), batches(2))
    assert caplog.messages[0].endswith(" The metric is missing unless OwnLoop logs it.")
    assert caplog.messages[1:] == ["checkpoint.monitor='gap': no such metric was logged."]


@pytest.mark.parametrize(
    ("monitor", "callbacks"), [("lr", [LearningRateMonitor()]), ("probe/score", [Probe(name="probe")])]
)
def test_a_metric_of_a_shipped_callback_or_a_downstream_validation_is_accepted(
    tmp_path: Path, monitor: str, callbacks: list[Callback], caplog: pytest.LogCaptureFixture
) -> None:
    with make(tmp_path, monitor, callbacks) as ours:
        assert ours.fit(batches(8), batches(2)).best.name == monitor
    assert caplog.messages == []


def test_a_slash_in_an_output_is_accepted_only_of_a_model_of_the_user(tmp_path: Path) -> None:
    with make(tmp_path / "own", "val/top/loss") as ours:
        ours.plan_fit(batches(8), batches(2))
    with make(tmp_path / "shipped", "val/top/loss", model=MLP(4, [4], num_classes=2)) as ours:
        with pytest.raises(SettingError, match=r"no such validation set\. Available: val\. Did you mean val/loss\?"):
            ours.plan_fit(batches(8), batches(2))


@pytest.mark.parametrize("names", [["web"], ["a/b"], ["a/b", "c"]])
def test_sets_with_their_own_names_have_a_mean(tmp_path: Path, names: list[str]) -> None:
    """One named set had no ``val/loss``, and a slash in a name removed the mean: the shipped objective never came."""
    sets = {name: batches(index + 1)[index:] for index, name in enumerate(names)}
    with make(tmp_path, "val/loss", [EarlyStopping()]) as ours:
        result = ours.fit(batches(8), sets)
    values = [result.metrics[f"val/{name}/loss"] for name in names]
    assert result.metrics["val/loss"] == sum(values) / len(values)
    assert result.best is not None and result.best.name == "val/loss"


def test_a_validation_outside_a_fit_leaves_the_mean_of_the_fit() -> None:
    with trainer(TrainingLoop(num_steps=4, eval_frequency=2)) as ours:
        before = ours.fit(batches(8), SETS).metrics["val/loss"]
        assert set(ours.validate({"test": batches(1)})) == {"val/test/loss", "val/test/error"}
        assert ours.metrics["val/loss"] == before


def test_a_resume_without_a_monitor_keeps_the_recorded_best_on_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It looked for the smallest accuracy, and removed the checkpoint with the largest."""

    def fit_to(num_steps: int, ckpt_path: str | None = None, **settings: Any) -> Any:
        loop = TrainingLoop(max_steps=num_steps, eval_frequency=2)
        checkpoint = Checkpointing(keep_last=1, **settings)
        with trainer(loop, model=Accuracy(), checkpoint=checkpoint, run_dir=tmp_path) as ours:
            return ours.fit(batches(8), batches(2), ckpt_path=ckpt_path).best

    assert fit_to(4, monitor="val/accuracy", mode="max").step == 2
    best = fit_to(10, "last")
    assert (best.name, best.step) == ("val/accuracy", 2)
    assert (tmp_path / "checkpoints" / "step_00000002").is_dir()
    assert "The monitored metric" not in caplog.text
