"""Special cases of a fit: stops, saves in a validation, errors, and a closed trainer."""

from __future__ import annotations

import functools
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.data import Loader
from loopwright.errors import CheckpointError, SettingError
from tiny import Recorder, Regression, adamw, batches, is_bitwise_equal, rows, sgd, trainer, weights


class On(Callback):
    """Calls ``act(trainer)`` in one hook."""

    def __init__(self, hook: str, act: Any) -> None:
        setattr(self, hook, lambda ours, *_: act(ours))


def test_a_stop_before_the_first_step_trains_and_saves_nothing(tmp_path: Path) -> None:
    stop = On("on_fit_start", lambda ours: ours.stop("at once"))
    ours = trainer(callbacks=[stop], checkpoint=Checkpointing(), run_dir=tmp_path)
    assert ours.fit(batches(6)).global_step == 0
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("hook", ["on_enter_validate", "on_validate_batch_end", "on_validate_end", "on_train_end"])
def test_a_checkpoint_saved_inside_a_validation_resumes_exactly(hook: str, tmp_path: Path) -> None:
    loop = TrainingLoop(num_steps=6, eval_frequency=3)

    def build(*callbacks: Callback) -> Any:
        return trainer(loop, model=lambda: Regression(dropout=0.5), optimizer=adamw, callbacks=callbacks)

    def save(ours: Any) -> None:
        if ours.global_step == 3:
            ours.save_checkpoint(tmp_path / "mine")

    data, val = Loader(rows(24), batch_size=4, shuffle=True), DataLoader(rows(4))
    straight = build(On(hook, save))
    straight.fit(data, val)
    again = build()
    again.fit(data, val, ckpt_path=tmp_path / "mine")
    assert is_bitwise_equal(weights(again), weights(straight))


@pytest.mark.parametrize("hook", ["on_after_optimizer_step", "on_train_step_end", "on_after_scheduler_step"])
def test_a_step_that_fails_after_its_update_is_not_repeated(hook: str) -> None:
    data = Loader(rows(24), batch_size=4, shuffle=True)
    settings: dict[str, Any] = {"schedulers": [functools.partial(torch.optim.lr_scheduler.StepLR, step_size=99)]}
    seen: list[Tensor] = []

    def fail_once(ours: Any) -> None:
        if ours.global_step == 2 and not seen:
            seen.append(weights(ours)["layers.0.weight"])
            raise RuntimeError("broken")

    ours = trainer(TrainingLoop(max_steps=5), callbacks=[On(hook, fail_once)], **settings)
    with pytest.raises(RuntimeError, match="broken"):
        ours.fit(data)
    assert (ours.global_step, ours.micro_batch_index) == (3, 3)
    ours.fit(data)
    straight = trainer(TrainingLoop(max_steps=5), **settings)
    straight.fit(data)
    assert is_bitwise_equal(weights(ours), weights(straight))


def test_gradients_from_before_a_fit_are_ignored() -> None:
    ours, other = trainer(), trainer()
    ours.model(batches(1)[0])["loss"].backward()
    for each in (ours, other):
        each.fit(batches(5))
    assert is_bitwise_equal(weights(ours), weights(other))


def test_a_scheduler_with_total_steps_is_extended_to_a_later_end(tmp_path: Path) -> None:
    one_cycle = functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1)
    data = batches(8)

    def build(max_steps: int) -> Any:
        settings: dict[str, Any] = {"checkpoint": Checkpointing(), "run_dir": tmp_path / str(max_steps)}
        return trainer(TrainingLoop(max_steps=max_steps), schedulers=[one_cycle], **settings)

    build(4).fit(data)
    longer = build(8)
    longer.fit(data, ckpt_path=tmp_path / "4")
    straight = trainer(TrainingLoop(max_steps=8), schedulers=[one_cycle])
    straight.fit(data)
    rates = [each.optimizer.param_groups[0]["lr"] for each in (longer, straight)]
    assert rates[0] == rates[1]


def test_a_later_fit_reports_that_a_schedule_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    def halving(optimizer: Any, total_steps: int) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / total_steps))

    ours = trainer(TrainingLoop(num_steps=2), schedulers=[halving])
    ours.fit(batches(4))
    ours.fit(batches(4))
    assert "the first fit, which was planned to end at step 2; this fit ends at step 4" in caplog.text


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (adamw, "optimizer: SGD -> AdamW"),
        (type("SGD", (torch.optim.AdamW,), {}), r"optimizer\.param_groups\[0\]\.betas: missing in the checkpoint"),
        (
            lambda parameters: torch.optim.SGD([{"params": [p]} for p in parameters], lr=0.1),
            r"optimizer\.param_groups: a list of 1, expected a list of 4",
        ),
    ],
)
def test_a_refused_resume_leaves_the_trainer_as_it_was(optimizer: Any, message: str, tmp_path: Path) -> None:
    saved = trainer()
    saved.fit(batches(5))
    saved.save_checkpoint(tmp_path / "saved")
    other = trainer(optimizer=optimizer, seed=4)
    before = weights(other)
    with pytest.raises((CheckpointError, SettingError), match=message):
        other.fit(batches(5), ckpt_path=tmp_path / "saved")
    assert is_bitwise_equal(weights(other), before) and other.global_step == 0


def test_weights_are_not_loaded_if_the_plan_is_refused(tmp_path: Path) -> None:
    trainer(checkpoint=Checkpointing(), run_dir=tmp_path).fit(batches(5))
    other = trainer(TrainingLoop(num_steps=1, grad_accum_steps=9), seed=4)
    before = weights(other)
    with pytest.raises(SettingError, match="grad_accum_steps=9"):
        other.fit(batches(5), init_from=tmp_path)
    assert is_bitwise_equal(weights(other), before)


def test_the_best_belongs_to_the_current_fit(tmp_path: Path) -> None:
    old = trainer(TrainingLoop(num_steps=9), checkpoint=Checkpointing(), run_dir=tmp_path)
    old.fit(batches(9), DataLoader(rows(8)))
    ours = trainer(TrainingLoop(num_steps=1), checkpoint=Checkpointing(monitor="val/loss"), run_dir=tmp_path / "new")
    ours.validate_all(DataLoader(rows(8)), tmp_path)
    ours.validate({"z": DataLoader(rows(8))})
    best = ours.fit(batches(9), DataLoader(rows(8))).best
    assert best is not None and (best.name, best.step) == ("val/loss", 1)


def test_callbacks_that_were_set_up_are_finalized_if_another_fails() -> None:
    told: list[str] = []

    class Failing(Callback):
        def post_setup(self, ours: Any) -> None:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        trainer(callbacks=[On("setup", lambda ours: told.append("up")), _Finalized(told), Failing()])
    assert told == ["up", "down"]


class _Finalized(Callback):
    def __init__(self, told: list[str]) -> None:
        self.told = told

    def finalize(self) -> None:
        self.told.append("down")


def test_a_closed_trainer_releases_its_model_and_reports_that_it_is_closed() -> None:
    gc.disable()
    try:
        with trainer() as ours:
            ours.fit(batches(5), DataLoader(rows(4)))
        model = weakref.ref(ours.model)
        with pytest.raises(RuntimeError, match="closed"):
            ours.fit(batches(5))
        with pytest.raises(RuntimeError, match="closed"):
            ours.validate(DataLoader(rows(4)))
        assert ours.plan is not None and ours.global_step == 5
        del ours
        assert model() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedulers": [torch.optim.lr_scheduler.ReduceLROnPlateau]}, '{"scheduler": …, "monitor": metric}'),
        ({"optimizer": torch.optim.LBFGS}, "LBFGS.step needs a closure"),
        ({"callbacks": Callback()}, "a list or a mapping of objects of class Callback"),
    ],
)
def test_settings_that_torch_refuses_at_the_first_step_are_refused_earlier(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message.replace("{", r"\{")):
        trainer(**settings).fit(batches(5))


def test_an_iterator_is_no_validation_dataloader() -> None:
    with pytest.raises(SettingError, match="can be read again"):
        trainer(TrainingLoop(num_steps=2, eval_steps=1)).fit(batches(5), iter(batches(5)))


def test_an_iterator_continues_at_its_position_after_an_exception() -> None:
    seen: list[float] = []

    def record(ours: Any, batch: Any, batch_idx: int) -> None:
        seen.append(batch[0][0, 0].item())
        if len(seen) == 2:
            raise RuntimeError("broken")

    data = batches(6)
    endless = iter(data)
    ours = trainer(TrainingLoop(max_steps=5), callbacks=[Recorder(record)], optimizer=sgd)
    with pytest.raises(RuntimeError, match="broken"):
        ours.fit(endless)
    ours.fit(endless)
    assert seen == [batch[0][0, 0].item() for batch in data[:5]]


def test_a_data_set_may_grow_between_fits() -> None:
    data = batches(4)
    ours = trainer(TrainingLoop(num_epochs=1))
    ours.fit(data)
    data.extend(batches(2))
    assert ours.plan_fit(data).total_steps == 6
    assert ours.fit(data).global_step == 10
