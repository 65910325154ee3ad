"""Tests of `ExponentialMovingAverage`: its values, its use in validations and checkpoints, and its cost."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from loopwright import Callback, Checkpointing, FitResult, Trainer, TrainingLoop, ValidationCallback
from loopwright.callbacks import EarlyStopping, ExponentialMovingAverage
from loopwright.checkpoint import plain_names, read_checkpoint, step_folder, write_checkpoint
from loopwright.data import Loader
from loopwright.errors import CheckpointError, SettingError

Weights = dict[str, Tensor]


class Tied(tiny.Regression):
    """A model with a parameter that has two names, an integer parameter, and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.again = self.layers[0]
        self.table = nn.Parameter(torch.arange(3), requires_grad=False)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        features, target = batch
        return super().forward((self.norm(features), target))


class On(Callback):
    """Calls ``act(trainer)`` in one hook."""

    def __init__(self, hook: str, act: Any) -> None:
        setattr(self, hook, lambda ours, *_: act(ours))


class Probe(ValidationCallback):
    """A downstream validation that logs the loss of the model with its current weights."""

    def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
        trainer.log_metrics(**{"probe/loss": loss_of(trainer.model)})


def val() -> Loader:
    return Loader(tiny.rows(12), batch_size=5)


def loss_of(model: nn.Module) -> float:
    """Return the loss on the rows of `val` in evaluation mode, and restore the mode of the model."""
    is_training = model.training
    with torch.no_grad():
        loss = float(model.eval()(tiny.rows(12).tensors)["loss"])
    model.train(is_training)
    return loss


def averages(of: Trainer) -> Weights:
    return {name: tensor.clone() for name, tensor in ema_of(of).state_dict()["averaged_weights"].items()}


def ema_of(of: Trainer) -> ExponentialMovingAverage:
    (found,) = (each for each in of.callbacks if isinstance(each, ExponentialMovingAverage))
    return found


def build(num_steps: int = 6, *more: Callback, **settings: Any) -> Trainer:
    loop = TrainingLoop(max_steps=num_steps, eval_frequency=2, grad_accum_steps=3)
    callbacks = [ExponentialMovingAverage(settings.pop("decay", 0.5)), *more]
    defaults = {"loop": loop, "callbacks": callbacks, "model": Tied, "optimizer": tiny.adamw}
    return tiny.trainer(**(defaults | settings))


def loss_with(weights: Weights, of: Trainer) -> float:
    """Return the loss of a new model with ``weights`` and the buffers of the trained model."""
    model = Tied()
    model.load_state_dict(tiny.weights(of) | weights)
    return loss_of(model)


# The values of the average


@pytest.mark.parametrize(
    ("settings", "decays"),
    [
        ({"decay": 0.9}, dict.fromkeys(range(1, 8), 0.9)),
        ({"decay": 0.0}, dict.fromkeys(range(1, 8), 0.0)),
        ({"decay": 0.9, "every_n_steps": 3}, {3: 0.9, 6: 0.9}),
        ({"decay": 0.25, "warms_up": True}, {1: 0.1, 2: 2 / 11, 3: 0.25, 4: 0.25, 5: 0.25, 6: 0.25, 7: 0.25}),
        ({"decay": 0.9, "warms_up": True, "every_n_steps": 2}, {2: 0.1, 4: 2 / 11, 6: 0.25}),
    ],
)
def test_the_average_follows_the_formula(settings: dict[str, Any], decays: dict[int, float]) -> None:
    trained: dict[int, Weights] = {}

    def note(trainer: Trainer, batch: Any, batch_idx: int) -> None:
        trained[trainer.global_step] = tiny.weights(trainer)

    ema = ExponentialMovingAverage(**settings)
    ours = tiny.trainer(
        TrainingLoop(num_steps=7, grad_accum_steps=3),
        model=partial(tiny.Regression, torch.float64),
        callbacks=[ema, tiny.Recorder(note)],
    )
    expected = tiny.weights(ours)
    ours.fit([tuple(part.double() for part in batch) for batch in tiny.batches()])
    for step, decay in decays.items():
        expected = {name: decay * old + (1 - decay) * trained[step][name] for name, old in expected.items()}
    assert tiny.largest_difference(averages(ours), expected) < 1e-14


def test_the_trained_weights_are_the_same_as_without_the_average() -> None:
    plain = build(6, callbacks=[])
    plain.fit(tiny.batches(), val())
    ours = build(6)
    ours.fit(tiny.batches(), val())
    assert tiny.is_bitwise_equal(tiny.weights(ours), tiny.weights(plain))


def test_a_tied_parameter_has_one_average_under_both_names_and_integers_have_none() -> None:
    ours = build()
    ours.fit(tiny.batches())
    held = ema_of(ours).state_dict()["averaged_weights"]
    assert held["layers.0.weight"] is not held["layers.3.weight"]
    assert held["layers.0.weight"].data_ptr() == held["again.weight"].data_ptr()
    assert "table" not in held and "norm.weight" in held and "norm.running_mean" not in held


def test_the_average_starts_with_the_weights_that_init_from_loads(tmp_path: Path) -> None:
    begun = build(3)
    begun.fit(tiny.batches())
    begun.save_checkpoint(tmp_path / "begun")
    ours = build(2, decay=0.999999)
    ours.fit(tiny.batches(), init_from=tmp_path / "begun")
    assert tiny.largest_difference(averages(ours), {n: tiny.weights(begun)[n] for n in averages(ours)}) < 1e-5


def test_a_second_fit_continues_the_average_unless_the_first_fit_failed_before_its_first_step() -> None:
    failing = [True]

    def fail_once(ours: Trainer) -> None:
        if failing:
            failing.clear()
            raise KeyError("broken")

    whole, halves = (
        build(8),
        build(4, On("on_fit_start", fail_once), loop=TrainingLoop(num_steps=4, grad_accum_steps=3)),
    )
    start = {name: tensor + 1 for name, tensor in tiny.weights(whole).items()}
    with pytest.raises(KeyError, match="broken"):
        halves.fit(tiny.batches(24))
    for ours in (whole, halves):
        ours.model.load_state_dict(start)
    data = tiny.batches(24)
    whole.fit(data)
    for _ in range(2):
        halves.fit(data)
    assert tiny.is_bitwise_equal(averages(halves), averages(whole))


# Validations


def test_every_validation_uses_the_average_and_the_trained_weights_are_restored() -> None:
    probe = Probe()
    ours = build(6, probe)
    result = ours.fit(tiny.batches(), val())
    trained, expected = tiny.weights(ours), pytest.approx(loss_with(averages(ours), ours), rel=1e-6)
    assert result.metrics["val/loss"] == expected
    assert result.metrics["probe/loss"] == expected
    assert ours.validate(val())["val/loss"] == expected
    on_val, on_probe = ours.validate_all(val())
    assert (on_val.metrics["val/loss"], on_probe.metrics["probe/loss"]) == (expected, expected)
    assert ours.metrics["probe/loss"] == expected
    assert tiny.is_bitwise_equal(tiny.weights(ours), trained)
    assert loss_with(trained, ours) != expected


def test_a_validation_before_a_fit_uses_the_weights_of_the_model() -> None:
    ours = build()
    assert ours.validate(val())["val/loss"] == pytest.approx(loss_of(ours.model), rel=1e-6)


@pytest.mark.parametrize("hook", ["on_enter_validate", "on_validate_batch_end", "run_validation"])
def test_after_an_error_in_a_validation_the_trained_weights_are_restored(hook: str) -> None:
    def fail(ours: Trainer) -> None:
        raise KeyError("broken")

    straight, ours = build(2, callbacks=[]), build(6, On(hook, fail))
    straight.fit(tiny.batches())
    with pytest.raises(KeyError, match="broken"):
        ours.fit(tiny.batches(), val())
    assert tiny.is_bitwise_equal(tiny.weights(ours), tiny.weights(straight))
    assert not tiny.is_bitwise_equal(averages(ours), {n: tiny.weights(ours)[n] for n in averages(ours)})


@pytest.mark.parametrize("hook", ["on_after_forward", "on_before_optimizer_step", "on_after_optimizer_step"])
def test_a_validation_inside_a_step_changes_neither_the_weights_nor_the_average(hook: str) -> None:
    is_inside: list[bool] = []

    def validate(ours: Trainer) -> None:
        if not is_inside:
            is_inside.append(True)
            ours.validate(val())
            is_inside.clear()

    straight, ours = build(6), build(6, On(hook, validate))
    straight.fit(tiny.batches())
    ours.fit(tiny.batches())
    assert tiny.is_bitwise_equal(tiny.weights(ours), tiny.weights(straight))
    assert tiny.is_bitwise_equal(averages(ours), averages(straight))


# Checkpoints


@pytest.mark.parametrize("hook", ["on_train_end", "on_enter_validate", "on_validate_end", "run_validation"])
def test_a_checkpoint_has_the_trained_weights_and_the_average_in_whichever_hook_it_is_saved(
    hook: str, tmp_path: Path
) -> None:
    def save(ours: Trainer) -> None:
        if ours.global_step == 4:
            ours.save_checkpoint(tmp_path / "inside")

    straight, saving = build(4), build(6, On(hook, save))
    straight.fit(tiny.batches(24))
    saving.fit(tiny.batches(24), val())
    state = read_checkpoint(tmp_path / "inside").state
    held = state["callbacks"]["ExponentialMovingAverage"]
    assert tiny.is_bitwise_equal(state["model"], plain_names(straight.model))
    assert tiny.is_bitwise_equal(held["averaged_weights"], averages(straight))
    assert (
        held["num_updates"] == 4
        and held["averaged_weights"]["again.weight"] is held["averaged_weights"]["layers.0.weight"]
    )
    again = build(6, On(hook, lambda ours: None))
    again.fit(tiny.batches(24), val(), ckpt_path=tmp_path / "inside")
    assert tiny.is_bitwise_equal(averages(again), averages(saving))
    assert tiny.is_bitwise_equal(tiny.weights(again), tiny.weights(saving))


def test_validating_a_checkpoint_uses_its_average_and_does_not_change_the_one_in_memory(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"checkpoint": Checkpointing(every_n_steps=2), "run_dir": tmp_path}
    logged: dict[int, float] = {}
    note = On("on_validate_end", lambda each: logged.update({each.global_step: each.metrics["val/loss"]}))
    ours = build(6, Probe(), note, **settings)
    ours.fit(tiny.batches(), val())
    seen, best = list(logged.values()), ours.best
    trained, held = tiny.weights(ours), averages(ours)
    folders = [step_folder(tmp_path, step) for step in (2, 4, 6)]
    for each in (ours, build(1, Probe())):
        rows = each.validate_all(val(), [f"{tmp_path}/checkpoints/*"])
        assert [row.metrics["val/loss"] for row in rows if row.dataloader == "val"] == seen
        assert [each.validate(val(), ckpt_path=folder)["val/loss"] for folder in folders] == seen
        assert each.metrics["probe/loss"] == pytest.approx(seen[-1], rel=1e-6)
    assert best is not None and ours.validate(val(), ckpt_path="best")["val/loss"] == best.value
    assert ours.validate(val())["val/loss"] == seen[-1] and ours.validation_checkpoint is None
    assert tiny.is_bitwise_equal(tiny.weights(ours), trained) and tiny.is_bitwise_equal(averages(ours), held)


def test_a_checkpoint_can_be_validated_within_a_round_of_a_fit(tmp_path: Path) -> None:
    seen: list[float] = []

    def compare(ours: Trainer) -> None:
        if ours.global_step == 4:
            seen.append(ours.validate(val(), ckpt_path=tmp_path)["On/loss"])
            assert ours.validation_checkpoint is None

    begun = build(2, checkpoint=Checkpointing(), run_dir=tmp_path)
    first = begun.fit(tiny.batches(), val()).metrics["val/loss"]
    straight, ours = build(6), build(6, On("run_validation", compare))
    straight.fit(tiny.batches(), val())
    result = ours.fit(tiny.batches(), val())
    assert seen == [first]
    assert result.metrics["val/loss"] == straight.metrics["val/loss"]
    assert tiny.is_bitwise_equal(tiny.weights(ours), tiny.weights(straight))


def test_a_checkpoint_without_an_average_is_validated_with_its_weights(tmp_path: Path) -> None:
    plain = build(6, callbacks=[])
    plain.fit(tiny.batches())
    plain.save_checkpoint(tmp_path / "plain")
    ours = build(2)
    ours.fit(tiny.batches())
    assert ours.validate(val(), ckpt_path=tmp_path / "plain") == plain.validate(val())


def test_the_average_has_the_parameter_names_of_the_unwrapped_model(tmp_path: Path) -> None:
    wrapped = build(4, model=lambda: nn.DataParallel(Tied()))
    wrapped.fit(tiny.batches())
    wrapped.save_checkpoint(tmp_path / "wrapped")
    plain, straight = build(8), build(8)
    plain.fit(tiny.batches(), ckpt_path=tmp_path / "wrapped")
    straight.fit(tiny.batches())
    assert tiny.is_bitwise_equal(averages(plain), averages(straight))
    assert "layers.0.weight" in averages(wrapped)


def test_an_average_that_does_not_match_the_model_is_refused_and_the_error_names_the_entry(tmp_path: Path) -> None:
    begun = build(2)
    begun.fit(tiny.batches())
    state = read_checkpoint(begun.save_checkpoint(tmp_path / "good")).state
    held = state["callbacks"]["ExponentialMovingAverage"]
    whole = dict(held["averaged_weights"])
    for name in ("layers.0.weight", "norm.bias"):
        for wrong in (None, whole[name].double(), whole[name][:1]):
            others = {key: value for key, value in whole.items() if key != name}
            held["averaged_weights"] = others if wrong is None else others | {name: wrong}
            write_checkpoint(tmp_path / "bad", state, step=2)
            with pytest.raises(
                CheckpointError, match=rf"averaged_weights: {name}: these entries do not match the model; expected"
            ):
                build(4).fit(tiny.batches(), ckpt_path=tmp_path / "bad")
    held.pop("num_updates")
    write_checkpoint(tmp_path / "bad", state, step=2)
    with pytest.raises(
        CheckpointError, match=r"has the entries decay, .*warms_up, averaged_weights; expected .*num_updates, averaged"
    ):
        build(4).fit(tiny.batches(), ckpt_path=tmp_path / "bad")


# Resumed runs


def build_with_early_stopping(
    folder: Path, *more: Callback, every_n_steps: int | None = 1, monitor: str = "val/loss", **settings: Any
) -> Trainer:
    """Build a trainer with dropout, accumulation, an average, and early stopping, which ends the run at step 10."""
    ema = ExponentialMovingAverage(0.9, every_n_steps=2, warms_up=True)
    return tiny.trainer(
        TrainingLoop(num_steps=20, eval_frequency=2, grad_accum_steps=3),
        model=lambda: tiny.Regression(dropout=0.3),
        optimizer=tiny.adamw,
        callbacks={
            "ema": ema,
            "early": EarlyStopping(monitor, min_delta=1e9, patience=4),
            **{str(i): m for i, m in enumerate(more)},
        },
        checkpoint=Checkpointing(every_n_steps=every_n_steps),
        run_dir=folder,
        **settings,
    )


def data() -> Loader:
    return Loader(tiny.rows(50), batch_size=4, shuffle=True)


def assert_same_end(again: Trainer, result: FitResult, straight: Trainer, expected: FitResult) -> None:
    assert (result.state, result.global_step, again.stop_reason) == ("stopped", 10, straight.stop_reason)
    assert (result.metrics, result.best) == (expected.metrics, expected.best)
    assert tiny.is_bitwise_equal(tiny.weights(again), tiny.weights(straight))
    assert tiny.is_bitwise_equal(averages(again), averages(straight))
    assert again.callbacks[1].state_dict() == straight.callbacks[1].state_dict()


def test_a_run_resumed_from_any_step_equals_a_straight_run(tmp_path: Path) -> None:
    straight = build_with_early_stopping(tmp_path)
    expected = straight.fit(data(), val())
    for step in range(1, 11):
        again = build_with_early_stopping(tmp_path / f"again_{step}", seed=99)
        assert_same_end(again, again.fit(data(), val(), ckpt_path=step_folder(tmp_path, step)), straight, expected)


@pytest.mark.parametrize(
    ("hook", "name"),
    [
        ("on_train_end", None),
        ("on_enter_validate", "val/a"),
        ("on_validate_batch_end", "val/b"),
        ("on_validate_end", "val/a"),
        ("on_validate_end", "val/b"),
        ("on_train_start", None),
    ],
)
def test_a_run_interrupted_in_or_near_a_round_of_validations_equals_a_straight_run(
    hook: str, name: str | None, tmp_path: Path
) -> None:
    sets = {"a": val(), "b": val()}
    settings: dict[str, Any] = {"every_n_steps": None, "monitor": "val/a/loss"}
    straight = build_with_early_stopping(tmp_path / "straight", **settings)
    expected = straight.fit(data(), sets)
    for step in (2, 4, 6, 8, 10):

        def cut(ours: Trainer, step: int = step) -> None:
            if (ours.global_step, ours.validation_name) == (step, name):
                ours.stop("cut", is_interruption=True)

        folder = tmp_path / str(step)
        begun = build_with_early_stopping(folder, On(hook, cut), **settings)
        result = begun.fit(data(), sets)
        if (hook, step) != ("on_train_start", 10):  # early stopping ends the fit before this hook is called at step 10
            assert (result.state, result.global_step, begun.stop_reason) == ("interrupted", step, "cut")
        again = build_with_early_stopping(tmp_path / f"again_{step}", **settings)
        assert_same_end(again, again.fit(data(), sets, ckpt_path=folder), straight, expected)


# Cost and ownership


class Counting(TorchDispatchMode):
    """Counts operations that read a tensor back to the host, and updates of an average."""

    def __init__(self) -> None:
        super().__init__()
        self.read_backs = self.averagings = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.read_backs += "_local_scalar_dense" in str(func)
        self.averagings += "lerp" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("warms_up", [False, True])
def test_an_update_is_one_operation_and_reads_no_tensor_back(warms_up: bool) -> None:
    counts: dict[int, tuple[int, int]] = {}

    def note(trainer: Trainer, batch: Any, batch_idx: int) -> None:
        counts[trainer.global_step] = (mode.read_backs, mode.averagings)

    callbacks = [ExponentialMovingAverage(every_n_steps=2, warms_up=warms_up), tiny.Recorder(note)]
    ours = tiny.trainer(TrainingLoop(num_steps=8, grad_accum_steps=3), callbacks=callbacks, log_every_n_steps=8)
    with Counting() as mode:
        ours.fit(tiny.batches(24))
    assert [counts[step] for step in range(1, 8)] == [(0, step // 2) for step in range(1, 8)]
    with Counting() as mode:
        torch.ones(2).sum().item()
    assert mode.read_backs == 1


def test_a_second_trainer_can_use_the_callback_and_the_first_model_is_freed() -> None:
    ema = ExponentialMovingAverage(0.5, warms_up=True)
    ends = []
    for _ in range(2):
        ours = build(4, callbacks=[ema])
        held = [weakref.ref(parameter) for parameter in ours.model.parameters()]
        assert ours.validate(val())["val/loss"] == pytest.approx(loss_of(ours.model), rel=1e-6)
        ours.fit(tiny.batches(), val())
        ours.fit(tiny.batches(), val())
        ours.close()
        ours.close()
        ends.append(averages(ours))
        del ours
        gc.collect()
        assert all(parameter() is None for parameter in held)
    assert tiny.is_bitwise_equal(*ends)


def test_two_averages_in_one_trainer_are_refused() -> None:
    callbacks = {"slow": ExponentialMovingAverage(0.999), "fast": ExponentialMovingAverage(0.9)}
    with pytest.raises(SettingError, match="callbacks: expected at most one ExponentialMovingAverage, found 2; "):
        build(2, callbacks=callbacks)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1}, "decay=1: expected a number in [0, 1)."),
        ({"decay": -0.1}, "decay=-0.1: expected a number in [0, 1)."),
        ({"decay": float("nan")}, "decay=nan: expected a number in [0, 1)."),
        ({"decay": "0.9"}, "decay='0.9': expected a number in [0, 1)."),
        ({"every_n_steps": 0}, "every_n_steps=0: expected a whole number of steps, 1 or more."),
        ({"warms_up": 1}, "warms_up=1: expected true or false."),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        ExponentialMovingAverage(**settings)
    assert str(caught.value) == message
