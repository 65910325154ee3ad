"""`Trainer.fit`: lengths, positions, results, and refused arguments."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from loopwright import (
    Callback,
    Checkpointing,
    Logger,
    Trainer,
    TrainingLoop,
    ValidationCallback,
    ValidationLoop,
)
from loopwright.callbacks import EarlyStopping
from loopwright.data import Loader
from loopwright.errors import SettingError
from loopwright.plan import describe
from tiny import Recorder, Regression, batches, is_bitwise_equal, rows, sgd, trainer, weights


class Stream(IterableDataset[Any]):
    """An iterable data set without a length."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def __iter__(self) -> Iterator[Any]:
        return iter([rows(self.num_rows)[index] for index in range(self.num_rows)])


class Memory(Logger):
    """Stores the values that it receives."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, str, float]] = []

    def log_metrics(self, metrics: Any, step: int) -> None:
        self.entries += [(step, name, value) for name, value in metrics.items()]


def test_the_result_says_what_was_done() -> None:
    ours = trainer(TrainingLoop(num_steps=6, eval_frequency=2))
    result = ours.fit(batches(8), DataLoader(rows(10), batch_size=4))
    assert (result.state, result.global_step, result.plan) == ("completed", 6, ours.plan)
    assert set(result.metrics) == {"train/loss", "train/error", "val/loss", "val/error"}
    assert result.best is not None and result.best.name == "val/loss" and result.best.step in (2, 4, 6)
    assert result.seconds > 0
    assert ours.metrics == result.metrics


def test_max_steps_counts_across_fits_and_num_steps_does_not() -> None:
    ours = trainer(TrainingLoop(max_steps=5))
    assert ours.fit(batches(8)).global_step == 5
    again = trainer(TrainingLoop(num_steps=3))
    again.fit(batches(8))
    assert again.fit(batches(8)).global_step == 6


def test_a_completed_fit_reports_it_and_trains_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ours = trainer(TrainingLoop(max_steps=5))
    data = batches(8)
    ours.fit(data)
    before = weights(ours)
    result = ours.fit(data)
    assert result.state == "completed" and result.plan.total_steps == 0
    assert is_bitwise_equal(weights(ours), before)
    assert "Nothing to train: global_step is 5" in caplog.text


def test_another_dataloader_begins_a_new_pass() -> None:
    seen: list[float] = []
    record = Recorder(lambda trainer, batch, batch_idx: seen.append(batch[0][0, 0].item()))
    ours = trainer(TrainingLoop(num_steps=2), callbacks=[record])
    first, second = batches(3), batches(3)
    ours.fit(first)
    assert ours.micro_batch_index == 2
    ours.fit(second)
    assert seen == [batch[0][0, 0].item() for batch in [*first[:2], *second[:2]]]


def test_a_dataloader_of_unknown_length_is_read_pass_after_pass() -> None:
    """A pass of 5 micro-batches, 2 per step: the third step of each pass has only one."""
    sizes: list[int] = []
    ours = trainer(
        TrainingLoop(num_steps=6, grad_accum_steps=2),
        callbacks=[Recorder(lambda trainer, batch, batch_idx: sizes.append(trainer.global_step))],
    )
    ours.fit(DataLoader(Stream(10), batch_size=2))
    assert sizes == [0, 1, 1, 2, 3, 3, 4, 4, 5, 6]
    known = trainer(TrainingLoop(num_steps=6, grad_accum_steps=2))
    known.fit(DataLoader(rows(10), batch_size=2))
    assert is_bitwise_equal(weights(ours), weights(known))


def test_a_failed_step_is_repeated_by_the_next_fit() -> None:
    class Breaking(Callback):
        is_armed = True

        def on_train_batch_start(self, *args: Any) -> None:
            if self.is_armed and args[0].global_step == 2 and args[-1] == 5:
                self.is_armed = False
                raise RuntimeError("broken")

    loop = TrainingLoop(max_steps=4, grad_accum_steps=2)
    data = Loader(rows(40), batch_size=4, shuffle=True)
    ours = trainer(loop, callbacks=[Breaking()])
    with pytest.raises(RuntimeError, match="broken"):
        ours.fit(data)
    assert (ours.global_step, ours.micro_batch_index) == (2, 4)
    ours.fit(data)
    straight = trainer(loop)
    straight.fit(data)
    assert is_bitwise_equal(weights(ours), weights(straight))


def test_log_metrics_reaches_the_loggers_immediately() -> None:
    memory = Memory()
    ours = trainer(loggers={"memory": memory})
    ours.log_metrics(mine=torch.tensor(2.0), yours=3)
    assert memory.entries == [(0, "mine", 2.0), (0, "yours", 3.0)]
    assert ours.metrics["mine"] == 2.0


def test_stop_ends_after_the_step_saves_and_is_forgotten_by_the_next_fit(tmp_path: Path) -> None:
    stopper = Recorder(lambda trainer, batch, batch_idx: trainer.global_step == 3 and trainer.stop("enough"))
    loop = TrainingLoop(max_steps=10, eval_frequency=5)
    ours = trainer(loop, callbacks=[stopper], checkpoint=Checkpointing(), run_dir=tmp_path)
    data, val = batches(8), DataLoader(rows(4))
    result = ours.fit(data, val)
    assert (result.state, result.global_step, ours.stop_reason) == ("stopped", 3, "enough")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000003"]
    result = ours.fit(data, val)
    assert (result.state, result.global_step, ours.stop_reason) == ("completed", 10, None)


class StopsAtOnce(Callback):
    def on_fit_start(self, ours: Trainer, *_: Any) -> None:
        ours.stop("at once")


@pytest.mark.parametrize(
    ("callbacks", "name"), [([StopsAtOnce()], "StopsAtOnce"), ({"first": Callback(), "ends": StopsAtOnce()}, "ends")]
)
def test_the_callback_that_stops_a_fit_is_named(callbacks: Any, name: str, caplog: pytest.LogCaptureFixture) -> None:
    ours = trainer(callbacks=callbacks)
    assert (ours.stopped_by, ours.fit(batches(8)).state, ours.stopped_by) == (None, "stopped", name)
    said = f"Nothing to train: {name} stopped this run at step 0 (at once). "
    assert caplog.messages == [f"{said}{name} decides whether a resume trains further."]


def test_the_innermost_callback_is_named_and_a_model_is_not() -> None:
    class Validates(ValidationCallback):
        def run_validation(self, ours: Trainer, loop_idx: int | None, is_last: bool) -> None:
            ours.validate(batches(1))

    class StopsInValidation(Callback):
        def on_validate_end(self, ours: Trainer, *_: Any) -> None:
            ours.stop("enough")

    ours = trainer(callbacks=[Validates(), StopsInValidation()])
    ours.fit(batches(8), [batches(1)])
    assert ours.stopped_by == "StopsInValidation"

    class StoppingModel(Regression):
        def forward(self, batch: Any) -> Any:
            ours.stop("enough")
            return super().forward(batch)

    ours = trainer(model=StoppingModel, callbacks=[Callback()])
    assert (ours.fit(batches(8)).state, ours.stop_reason, ours.stopped_by) == ("stopped", "enough", None)


def test_stop_outside_a_fit_does_nothing() -> None:
    ours = trainer(TrainingLoop(num_steps=2))
    ours.stop("never mind")
    assert ours.fit(batches(2)).state == "completed"


def test_checkpoints_are_refused_inside_a_step(tmp_path: Path) -> None:
    def save(trainer: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % 2 == 0:
            with pytest.raises(RuntimeError, match="at the end of a step"):
                trainer.save_checkpoint(tmp_path / "inside")
        else:
            trainer.save_checkpoint(tmp_path / f"after_{trainer.global_step}")

    trainer(TrainingLoop(num_steps=2, grad_accum_steps=2), callbacks=[Recorder(save)]).fit(batches(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after_1", "after_2"]


def test_no_files_are_written_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer(TrainingLoop(num_steps=2)).fit(batches(2), DataLoader(rows(4)))
    assert not list(tmp_path.iterdir())
    trainer(TrainingLoop(num_steps=2), run_dir=tmp_path / "run").fit(batches(2), DataLoader(rows(4)))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_modules_frozen_in_evaluation_mode_stay_so() -> None:
    modes: list[tuple[bool, bool]] = []

    class Watching(Callback):
        def on_train_step_start(self, trainer: Any, model: Any, batch: Any) -> None:
            modes.append((model.training, model.layers[2].training))

        def on_validate_step_start(self, trainer: Any, model: Any, batch: Any) -> None:
            assert not model.training and not model.layers[2].training

    model = Regression(dropout=0.5)
    model.layers[2].eval()
    trainer(TrainingLoop(num_steps=2, eval_frequency=1), model=model, callbacks=[Watching()]).fit(
        batches(2), DataLoader(rows(4))
    )
    assert modes == [(True, False)] * 2
    assert (model.training, model.layers[2].training) == (True, False)


class Bad(nn.Module):
    """Returns the value that it was built with."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.answer = answer

    def forward(self, batch: Any) -> Any:
        return self.answer(self.weight)


def test_a_model_may_return_the_bare_loss() -> None:
    ours = trainer(TrainingLoop(num_steps=1), model=lambda: Bad(torch.sum))
    assert ours.fit(batches(1), DataLoader(rows(3))).metrics == {"train/loss": 2.0, "val/loss": pytest.approx(1.9)}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"loop": ValidationLoop()}, TypeError, "a TrainingLoop for fit; use validate"),
        ({"optimizer": None}, ValueError, "optimizer=null"),
        ({"loop": TrainingLoop()}, ValueError, "num_steps.*max_steps.*num_epochs"),
        ({"loop": TrainingLoop(num_steps=1, grad_accum_steps=9)}, ValueError, "grad_accum_steps=9"),
    ],
)
def test_an_impossible_fit_is_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        trainer(**settings).fit(batches(8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint": Checkpointing()}, "without run_dir"),
        ({"log_every_n_steps": 0}, "log_every_n_steps=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"device": "gpuu"}, "device='gpuu'"),
        ({"model": 3}, "model=3"),
        ({"model": dict}, "model={}"),
        ({"optimizer": 3}, "optimizer=3"),
        ({"optimizer": torch.optim.SGD([torch.ones(1, requires_grad=True)])}, "_partial_"),
        ({"schedulers": [3]}, "schedulers=3"),
        ({"callbacks": [object()]}, "callbacks=object(…"),
        ({"callbacks": [Logger()]}, "give loggers as"),
        ({"loggers": [Callback()]}, "loggers="),
        ({"precision": 32}, "precision=32"),
        ({"loop": 3}, "loop=3"),
        ({"checkpoint": 3, "run_dir": "x"}, "checkpoint=3"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_at_construction(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message.replace("(", r"\(")):
        trainer(**settings)


def test_an_optimizer_instance_is_used_as_given() -> None:
    model = Regression()
    optimizer = sgd(model.parameters())
    ours = trainer(TrainingLoop(num_steps=1), model=model, optimizer=optimizer)
    ours.fit(batches(1))
    assert ours.optimizer is optimizer


def test_two_stateful_callbacks_of_one_name_are_refused() -> None:
    class Keeping(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"count": 1}

    with pytest.raises(SettingError, match="two callbacks with a state have the name Keeping"):
        trainer(callbacks=[Keeping(), Keeping()])
    trainer(callbacks={"a": Keeping(), "b": Keeping()})
    trainer(callbacks=[Callback(), Callback()])


def test_a_state_that_cannot_be_stored_is_refused_at_setup() -> None:
    class Keeping(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"deep": [{"set": {1}}]}

    with pytest.raises(SettingError, match=r"callbacks\.Keeping\.deep\[0\]\.set"):
        trainer(callbacks=[Keeping()])


def test_eval_steps_beyond_the_dataloader_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    ours = trainer(TrainingLoop(num_steps=4, eval_frequency=1, eval_steps=100))
    ours.fit(batches(4), DataLoader(rows(4)))
    assert caplog.text.count("eval_steps=100") == 1


def test_eval_frequency_one_gives_a_warning_in_a_long_fit() -> None:
    ours = trainer(TrainingLoop(num_steps=101, eval_frequency=1))
    with pytest.warns(UserWarning, match="eval_frequency=1"):
        ours.fit(batches(8), DataLoader(rows(1)))
    ours.fit(batches(8), DataLoader(rows(1)))


def test_validation_sets_are_named_by_their_position_or_key() -> None:
    """One dataloader is ``val``, in a list and under the key ``val`` too. Several have a mean for each metric."""
    data, keys = batches(2), {"loss", "error"}
    for single in (data, [data], {"val": data}, tuple(data)):
        assert set(trainer().validate(single)) == {f"val/{key}" for key in keys}
    first, second = batches(2), batches(3)[2:]
    for several, names in (([first, second], "01"), ({"a": first, "b": second}, "ab")):
        found = trainer().validate(several)
        assert set(found) == {f"val{name}/{key}" for name in ("", *(f"/{each}" for each in names)) for key in keys}
        one, other = (found[f"val/{name}/loss"] for name in names)
        assert found["val/loss"] == (one + other) / 2 and one != other
    assert set(trainer().validate({"val": first, "b": second})) == {f"val{n}/{key}" for n in ("", "/b") for key in keys}


def test_the_best_and_a_monitored_scheduler_use_the_mean_over_the_sets(tmp_path: Path) -> None:
    """Catches a run with several validation sets that ends after its first validation."""
    plateau = {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau, "monitor": "val/loss"}
    ours = trainer(
        TrainingLoop(num_steps=4, eval_frequency=2),
        schedulers=plateau,
        callbacks=[EarlyStopping()],
        checkpoint=Checkpointing(every_n_steps=1),
        run_dir=tmp_path,
    )
    sets = {"web": batches(2), "books": batches(3)[2:]}
    assert "val/<metric> is the mean over the 2 sets" in describe(ours.plan_fit(batches(8), sets))
    result = ours.fit(batches(8), sets)
    mean = (result.metrics["val/web/loss"] + result.metrics["val/books/loss"]) / 2
    assert result.metrics["val/loss"] == mean and result.best is not None and result.best.name == "val/loss"


@pytest.mark.parametrize(("monitor", "mode"), [("val/error", None), ("val/loss", "max")])
def test_a_resume_with_another_monitor_begins_its_best_again(
    monitor: str, mode: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a best value that is compared with values of another metric, or in the other direction."""

    def fit_to(num_steps: int, ckpt_path: str | None = None, **settings: Any) -> Any:
        checkpoint = Checkpointing(every_n_steps=2, **settings)
        loop = TrainingLoop(max_steps=num_steps, eval_frequency=2)
        ours = trainer(loop, checkpoint=checkpoint, run_dir=tmp_path)
        return ours.fit(batches(8), batches(2), ckpt_path=ckpt_path).best

    assert fit_to(4).name == "val/loss"
    best = fit_to(6, "last", monitor=monitor, mode="max" if mode else "min")
    assert best.name == monitor and best.step >= 4
    assert "the best value is looked for from here on" in caplog.text


def test_a_list_of_batches_and_dataloaders_is_refused() -> None:
    with pytest.raises(SettingError, match="expected a list of dataloaders, or a list of batches"):
        trainer().validate([*batches(2), DataLoader(rows(4))])


def test_validating_nothing_is_refused() -> None:
    for nothing in (None, [], {}):
        with pytest.raises(SettingError, match="expected a dataloader, or a list or mapping of them"):
            trainer().validate(nothing)


def test_the_default_loop_is_one_epoch() -> None:
    ours = trainer(loop=None)
    ours = type(ours)(model=Regression, optimizer=sgd, device="cpu")
    assert ours.fit(batches(7)).global_step == 7


def test_a_trainer_may_not_fit_inside_its_own_fit() -> None:
    def fit_again(trainer: Any, batch: Any, batch_idx: int) -> None:
        trainer.fit(batches(1))

    with pytest.raises(RuntimeError, match="already in a fit"):
        trainer(callbacks=[Recorder(fit_again)]).fit(batches(5))


def test_infinite_streams_end_by_the_plan() -> None:
    class Endless:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return itertools.cycle(batches(2))

    assert trainer(TrainingLoop(num_steps=5)).fit(Endless()).global_step == 5


def test_messages_go_through_the_logger_of_the_package(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="loopwright")
    ours = trainer(TrainingLoop(max_steps=1))
    data = batches(2)
    ours.fit(data)
    ours.fit(data)
    assert [record.name for record in caplog.records] == ["loopwright"]
