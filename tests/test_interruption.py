"""A fit that a signal interrupts at any point is saved, and resumes as if it had not been interrupted."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import tiny
from loopwright import Callback, Checkpointing, Trainer, TrainingLoop, ValidationCallback
from loopwright.data import Loader
from loopwright.loggers import CSVLogger, JSONLinesLogger

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


class Noisy(Dataset[Any]):
    """Rows with random noise."""

    def __init__(self, num_rows: int = 34) -> None:
        self.features, self.target = tiny.rows(num_rows).tensors

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.features[index] + 0.1 * torch.randn(4), self.target[index]


class Model(nn.Module):
    """A model with dropout and batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return {"loss": (self.layers(batch[0]) - batch[1]).square().mean()}


class Raising(Callback):
    """Sends this process a signal the ``nth`` time that ``hook`` is called."""

    def __init__(self, hook: str, nth: int, number: signal.Signals) -> None:
        self._nth = nth
        self._number = number
        setattr(self, hook, self._count)

    def _count(self, *_: Any) -> None:
        self._nth -= 1
        if self._nth == 0:
            signal.raise_signal(self._number)


class Downstream(ValidationCallback):
    """Runs another validation, on its own data."""

    def run_validation(self, trainer: Trainer, loop_idx: int, is_last: bool) -> None:
        trainer.validate({"downstream": Loader(tiny.rows(9), batch_size=4)})


class Counting(Callback):
    """Counts validated sets, like callbacks with patience."""

    def __init__(self) -> None:
        self.num_ends = 0

    def on_validate_end(self, trainer: Trainer, model: nn.Module, loop: Any) -> None:
        self.num_ends += 1
        trainer.log_metrics(num_ends=self.num_ends)

    def state_dict(self) -> dict[str, Any]:
        return {"num_ends": self.num_ends}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_ends = state_dict["num_ends"]


def build(run_dir: Path, *callbacks: Callback, at_validations: bool = False) -> Trainer:
    plateau = {
        "scheduler": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0),
        "monitor": "val/a/loss",
    }
    return tiny.trainer(
        TrainingLoop(num_steps=11, eval_frequency=3, grad_accum_steps=2),
        model=Model,
        optimizer=tiny.adamw,
        schedulers=[lambda o, total_steps: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps), plateau],
        callbacks=[Counting(), Downstream(every_n_vals=2, name="downstream"), *callbacks],
        loggers=[JSONLinesLogger(), CSVLogger()],
        checkpoint=Checkpointing(every_n_steps=4, at_validations=at_validations),
        log_every_n_steps=1,
        run_dir=run_dir,
    )


def fit(trainer: Trainer, ckpt_path: str | Path | None = None) -> Any:
    val = {"a": Loader(tiny.rows(10), batch_size=4), "b": Loader(tiny.rows(5), batch_size=4)}
    with trainer:
        return trainer.fit(Loader(Noisy(), batch_size=4, shuffle=True), val, ckpt_path=ckpt_path)


def same_run(a: Trainer, b: Trainer, a_dir: Path, b_dir: Path) -> None:
    assert tiny.is_bitwise_equal(tiny.weights(a.model), tiny.weights(b.model))
    assert a.optimizer is not None and b.optimizer is not None
    mine, theirs = a.optimizer.state_dict()["state"], b.optimizer.state_dict()["state"]
    assert all(torch.equal(mine[key][name], theirs[key][name]) for key in mine for name in mine[key])
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (a_dir / name).read_text() == (b_dir / name).read_text(), name


MOMENTS = [
    ("on_train_batch_start", 1),
    ("on_train_batch_start", 9),
    ("on_before_backward", 8),
    ("on_after_optimizer_step", 4),
    ("on_train_batch_end", 12),
    ("on_train_batch_end", 20),
    ("on_save_checkpoint", 1),
    ("on_after_save_checkpoint", 1),
    ("on_enter_validate_all", 2),
    ("on_validate_start", 3),
    ("on_validate_batch_end", 1),
    ("on_validate_batch_end", 3),
    ("on_validate_batch_end", 4),
    ("on_validate_batch_end", 12),
    ("on_validate_end", 1),
    ("on_validate_end", 2),
    ("on_validate_end", 5),
    ("on_validate_end", 6),
    ("on_after_scheduler_step", 8),
    ("on_train_end", 2),
]


@pytest.mark.parametrize("at_validations", [False, True])
@pytest.mark.parametrize("moment", range(len(MOMENTS)), ids=["-".join(map(str, moment)) for moment in MOMENTS])
def test_a_fit_interrupted_anywhere_resumes_bitwise(moment: int, at_validations: bool, tmp_path: Path) -> None:
    """With ``at_validations``, the resumed run repeats an interrupted round of validations."""
    number = SIGNALS[moment % 3]
    straight = build(tmp_path / "straight", Raising("finalize", 9, number), at_validations=at_validations)
    fit(straight)
    cut = build(tmp_path / "cut", Raising(*MOMENTS[moment], number), at_validations=at_validations)
    handlers = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as caught:
        fit(cut)
    if number != signal.SIGINT:
        assert caught.value.args == (143,)
    assert [signal.getsignal(each) for each in SIGNALS] == handlers
    newest = max((tmp_path / "cut" / "checkpoints").iterdir())
    assert newest.name == f"step_{cut.global_step:08d}"
    resumed = build(tmp_path / "cut", Raising("finalize", 9, number), at_validations=at_validations)
    assert fit(resumed, "last").state == "completed"
    same_run(resumed, straight, tmp_path / "cut", tmp_path / "straight")


def test_a_run_with_many_interruptions_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    straight = build(tmp_path / "straight")
    fit(straight)
    ckpt_path = None
    for _ in range(60):
        trainer = build(tmp_path / "cut", Raising("on_train_batch_end", 3, signal.SIGINT))
        try:
            fit(trainer, ckpt_path)
        except KeyboardInterrupt:
            ckpt_path = "last"
        else:
            break
    same_run(trainer, straight, tmp_path / "cut", tmp_path / "straight")


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    class Twice(Callback):
        def on_before_backward(self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any]) -> None:
            if trainer.global_step == 6:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
                raise AssertionError("the second one raises")

    cut = build(tmp_path, Twice())
    with pytest.raises(KeyboardInterrupt):
        fit(cut)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step_00000004"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_fit_after_two_signals_is_not_affected_by_them() -> None:
    signals = {name: Raising("on_before_backward", 3, signal.SIGTERM) for name in ("first", "second")}
    cut, straight = tiny.trainer(callbacks=signals), tiny.trainer(TrainingLoop(num_steps=7))
    data = tiny.batches()
    with pytest.raises(SystemExit):
        cut.fit(data)
    assert cut.global_step == 2
    assert (cut.fit(data).state, cut.global_step) == ("completed", 7)
    straight.fit(data)
    assert tiny.is_bitwise_equal(tiny.weights(cut), tiny.weights(straight))


class Dying:
    """Raises two signals in ``__del__``, where Python ignores exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("hook", ["on_before_backward", "on_validate_batch_start", "on_validate_batch_end"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_second_signal_that_is_swallowed_ends_the_fit_at_the_next_batch(hook: str, tmp_path: Path) -> None:
    class Deleting(Callback):
        num_batches = 0

        def delete(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 6:
                self.num_batches += 1
                if self.num_batches == 1:
                    Dying()  # Python deletes the object immediately

        def __init__(self) -> None:
            setattr(self, hook, self.delete)

    deleting = Deleting()
    cut = build(tmp_path, deleting)
    with pytest.raises(SystemExit) as caught:
        fit(cut)
    assert (caught.value.code, deleting.num_batches) == (143, 1)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step_00000004"]


def test_a_trainer_that_was_interrupted_can_validate(tmp_path: Path) -> None:
    class Limit(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.stop("time is up", is_interruption=True)

    with build(tmp_path, Limit()) as trainer:
        val = Loader(tiny.rows(10), batch_size=4)
        trainer.fit(Loader(Noisy(), batch_size=4, shuffle=True), {"a": val})
        assert "val/loss" in trainer.validate(val)


@pytest.mark.parametrize(
    ("number", "again"), [(signal.SIGINT, " Press Ctrl-C again to stop at once."), (signal.SIGTERM, "")]
)
@pytest.mark.parametrize(("checkpoint", "saving"), [(Checkpointing(), ", and saving"), (None, "")])
def test_the_effect_of_a_signal_is_printed(
    checkpoint: Checkpointing | None,
    saving: str,
    number: signal.Signals,
    again: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    stopping = Raising("on_train_batch_start", 2, number)
    loop = TrainingLoop(num_steps=3)
    with (
        tiny.trainer(loop, callbacks=[stopping], checkpoint=checkpoint, run_dir=tmp_path) as trainer,
        pytest.raises((KeyboardInterrupt, SystemExit)),
    ):
        trainer.fit(Loader(tiny.rows(12), batch_size=4))
    assert capfd.readouterr().err == f"\nStopping after this step{saving}.{again}\n"


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        fit(build(tmp_path, Raising("on_train_batch_end", 3, signal.SIGINT)))
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_fits_without_signals(tmp_path: Path) -> None:
    trainer = build(tmp_path)
    thread = threading.Thread(target=fit, args=(trainer,))
    thread.start()
    thread.join()
    assert trainer.global_step == 11


def test_stop_with_is_interruption_returns_from_fit(tmp_path: Path) -> None:
    class Limit(Callback):
        def on_validate_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.stop("time is up", is_interruption=True)

    trainer = build(tmp_path / "cut", Limit())
    result = fit(trainer)
    assert (result.state, result.global_step, trainer.stop_reason) == ("interrupted", 3, "time is up")
    straight, resumed = build(tmp_path / "straight", Callback()), build(tmp_path / "cut", Callback())
    fit(straight)
    assert fit(resumed, "last").state == "completed"
    same_run(resumed, straight, tmp_path / "cut", tmp_path / "straight")
