"""Tests a callback that raises an error in each hook, in each phase in which the hook is called.

Each test checks how the run ends, and that callbacks, checkpoints and workers are left in order. The hooks come from
the base class, and a spy records in which phases each hook is called, so that no hook can be forgotten.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from loopwright import Callback, Checkpointing, Logger, Trainer, TrainingLoop, ValidationCallback, ValidationLoop
from loopwright.checkpoint import resolve, verify_checkpoint
from loopwright.data import Loader
from loopwright.hooks import HOOKS

NUM_STEPS = 5


class Told(Exception):
    """Error that a callback raises."""


class Spy(Callback):
    """Records the hooks that are called while it listens, and raises an error in one of them."""

    def __init__(self, raising: str | None = None, error: type[BaseException] = Told) -> None:
        self.seen: set[str] = set()
        self.raises = raising is not None and error is Told
        self.is_listening = False
        for hook in HOOKS:
            setattr(self, hook, functools.partial(self._hear, hook, error if hook == raising else None))

    def _hear(self, hook: str, error: type[BaseException] | None, *_: Any) -> None:
        if self.is_listening:
            self.seen.add(hook)
            if error is not None:
                raise error(hook)


class Other(Callback):
    """Has state, counts how often it is closed, and can raise an error when it is closed."""

    def __init__(self, closes_badly: bool = False) -> None:
        self.num_finalized = self.num_batches = 0
        self.closes_badly = closes_badly

    def on_train_batch_end(self, *_: Any) -> None:
        self.num_batches += 1

    def state_dict(self) -> dict[str, Any]:
        return {"num_batches": self.num_batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_batches = state_dict["num_batches"]

    def finalize(self) -> None:
        self.num_finalized += 1
        if self.closes_badly:
            raise OSError("cannot be closed")


class Last(Logger):
    """A logger; it is closed after the callbacks."""

    num_finalized = 0

    def finalize(self) -> None:
        self.num_finalized += 1


class Model(tiny.Regression):
    """Fails in its forward if ``fails`` is true, so that the exception hooks are called."""

    fails = False

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        if self.fails:
            raise ArithmeticError("the model's own")
        return super().forward(batch)


class Downstream(ValidationCallback):
    """Runs another validation."""

    def run_validation(self, trainer: Trainer, loop_idx: int | None, is_last: bool) -> None:
        trainer.validate({"downstream": Loader(tiny.rows(6), batch_size=4)})


class Run:
    """Builds a trainer in ``run_dir``, with the spy between other callbacks."""

    def __init__(self, run_dir: Path, spy: Spy, *, background: bool = False) -> None:
        self.run_dir = run_dir
        self.background = background
        self.spy = spy
        self.others = [Other(), Other(closes_badly=spy.raises), Last()]

    def build(self) -> Trainer:
        return tiny.trainer(
            TrainingLoop(num_steps=NUM_STEPS, eval_frequency=2, grad_accum_steps=2),
            model=Model,
            optimizer=tiny.adamw,
            schedulers=[lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2)],
            callbacks={"a": self.others[0], "spy": self.spy, "b": self.others[1], "downstream": Downstream()},
            loggers=[self.others[2]],
            checkpoint=Checkpointing(every_n_steps=2, background=self.background),
            log_every_n_steps=1,
            run_dir=self.run_dir,
        )

    def fit(self, trainer: Trainer, ckpt_path: str | None = None, num_workers: int = 0) -> None:
        trainer.fit(Loader(tiny.rows(18), batch_size=4, shuffle=True, num_workers=num_workers), val(), ckpt_path)

    @contextmanager
    def listening(self) -> Iterator[None]:
        self.spy.is_listening = True
        try:
            yield
        finally:
            self.spy.is_listening = False


def val() -> dict[str, Loader]:
    return {"a": Loader(tiny.rows(6), batch_size=4), "b": Loader(tiny.rows(3), batch_size=4)}


# The phases. Each acts on a run directory whose newest checkpoint is at step 2, or begins a new run there.


def set_up(run: Run) -> None:
    with run.listening():
        trainer = run.build()
    trainer.close()


def new(run: Run) -> Run:
    """Remove the checkpoints, because a new run is refused in a directory with checkpoints of another run."""
    shutil.rmtree(run.run_dir / "checkpoints")
    return run


def fit(run: Run) -> None:
    with new(run).build() as trainer, run.listening():
        run.fit(trainer)


def resume(run: Run) -> None:
    with run.build() as trainer, run.listening():
        run.fit(trainer, "last", num_workers=1)


def save(run: Run) -> None:
    with run.build() as trainer, run.listening():
        trainer.save_checkpoint(run.run_dir / "by_hand")


def validate(run: Run) -> None:
    with run.build() as trainer, run.listening():
        trainer.validate(val(), ckpt_path="last")


def validate_all(run: Run) -> None:
    with run.build() as trainer, run.listening():
        trainer.validate_all(val(), ckpt_paths=run.run_dir, loop=ValidationLoop(eval_steps=1))


def failing_fit(run: Run) -> None:
    with new(run).build() as trainer, run.listening():
        trainer.model.fails = True  # type: ignore[assignment]
        run.fit(trainer)


def failing_validation(run: Run) -> None:
    with run.build() as trainer, run.listening():
        trainer.model.fails = True  # type: ignore[assignment]
        trainer.validate(val())


def close(run: Run) -> None:
    trainer = new(run).build()
    run.fit(trainer)
    with run.listening():
        trainer.close()


PHASES: list[Callable[[Run], None]] = [
    *(set_up, fit, resume, save, validate, validate_all, failing_fit, failing_validation, close),
]
BY_THE_MODEL = ("on_fit_exception", "on_train_exception", "on_validate_exception")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a run that was stopped at step 2."""

    class Stop(Spy):
        def _hear(self, hook: str, *_: Any) -> None:
            if hook == "on_after_save_checkpoint":
                trainer.stop("for now", is_interruption=True)

    run = Run(tmp_path_factory.mktemp("begun"), Stop())
    with run.build() as trainer:
        run.fit(trainer)
    assert resolve(run.run_dir).name == "step_00000002"
    return run.run_dir


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Return the weights of an uninterrupted run."""
    run = Run(tmp_path_factory.mktemp("straight"), Spy())
    with run.build() as trainer:
        run.fit(trainer)
    return tiny.weights(trainer)


Reached = Callable[[Callable[[Run], None]], set[str]]


@pytest.fixture(scope="module")
def reached(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Reached:
    """Return a function that lists the hooks that are called in a phase."""

    def look(phase: Callable[[Run], None]) -> set[str]:
        run_dir = tmp_path_factory.mktemp("look") / "run"
        shutil.copytree(begun, run_dir)
        run = Run(run_dir, Spy())
        with contextlib.suppress(ArithmeticError):
            phase(run)
        return run.spy.seen

    return functools.cache(look)


def check_left(run: Run, straight: dict[str, Tensor]) -> None:
    """Check that all callbacks were closed once, and that a resume from the newest checkpoint ends as usual.

    A run without a checkpoint begins again.
    """
    assert [other.num_finalized for other in run.others] == [1, 1, 1]
    newest = max((run.run_dir / "checkpoints").glob("step_*"), default=None)
    if newest is not None:
        verify_checkpoint(newest)
    again = Run(run.run_dir, Spy())
    with again.build() as trainer:
        again.fit(trainer, None if newest is None else "last")
    assert tiny.is_bitwise_equal(tiny.weights(trainer), straight)


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_callback_raises_and_another_fails_when_it_is_closed(
    phase: Callable[[Run], None],
    reached: Reached,
    begun: Path,
    straight: dict[str, Tensor],
    tmp_path: Path,
    num_workers_left: Callable[..., int],
) -> None:
    for hook in sorted(reached(phase)):
        shutil.copytree(begun, tmp_path / hook)
        run = Run(tmp_path / hook, Spy(hook))
        with pytest.raises(ArithmeticError if hook in BY_THE_MODEL else Told) as caught:
            phase(run)
        notes = caught.value.__notes__
        if hook in BY_THE_MODEL:
            assert (
                f"While this exception was reported to callbacks: Told: {hook}. Raised in callback spy.{hook}." in notes
            )
        else:
            assert notes[0] == f"Raised in callback spy.{hook}."
        closing = "While the trainer was closed: OSError: cannot be closed. Raised in callback b.finalize."
        assert closing in notes
        del caught
        assert num_workers_left(is_collected=True) == 0
        check_left(run, straight)


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_an_interruption_in_a_callback_also_ends_the_run(
    phase: Callable[[Run], None],
    reached: Reached,
    begun: Path,
    straight: dict[str, Tensor],
    tmp_path: Path,
    num_workers_left: Callable[..., int],
) -> None:
    for number, hook in enumerate(sorted(reached(phase))):
        error = (KeyboardInterrupt, SystemExit)[number % 2]
        shutil.copytree(begun, tmp_path / hook)
        run = Run(tmp_path / hook, Spy(hook, error), background=True)
        with pytest.raises(error) as caught:
            phase(run)
        assert f"Raised in callback spy.{hook}." in " ".join(caught.value.__notes__)
        del caught
        assert num_workers_left(is_collected=True) == 0
        check_left(run, straight)


def test_every_hook_is_reached_in_some_phase(reached: Reached) -> None:
    assert set().union(*(reached(phase) for phase in PHASES)) == set(HOOKS)
    assert sum(len(reached(phase)) for phase in PHASES) == 115
