"""Fits with intervals and schedules in epochs: resumes, kept checkpoints, and the arguments that schedulers get."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from loopwright import Checkpointing, FitResult, Trainer, TrainingLoop
from loopwright.checkpoint import step_folder, steps_in
from loopwright.data import Loader
from loopwright.errors import SettingError
from loopwright.optim import warmup_cosine
from tiny import batches, is_bitwise_equal, rows, trainer, weights

IN_EPOCHS: dict[str, Any] = {"eval_frequency": "1 epoch", "every_n_steps": "0.5 epochs", "warmup_steps": "1.5 epochs"}
IN_STEPS: dict[str, Any] = {"eval_frequency": 4, "every_n_steps": 2, "warmup_steps": 6}


def build(run_dir: Path, units: dict[str, Any], **settings: Any) -> Trainer:
    """Build a trainer for `data`: an epoch has 4 steps, the last of them with one micro-batch."""
    loop = {"num_epochs": 3, "grad_accum_steps": 2, "eval_frequency": units["eval_frequency"]}
    return trainer(
        TrainingLoop(**(loop | settings)),
        schedulers=[functools.partial(warmup_cosine, warmup_steps=units["warmup_steps"])],
        checkpoint=Checkpointing(every_n_steps=units["every_n_steps"]),
        run_dir=run_dir,
    )


def data() -> Loader:
    return Loader(rows(28), batch_size=4, shuffle=True)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer, FitResult]:
    run_dir = tmp_path_factory.mktemp("straight")
    ours = build(run_dir, IN_EPOCHS)
    return run_dir, ours, ours.fit(data(), batches(2))


def test_a_fit_in_epochs_is_the_fit_in_steps(straight: tuple[Path, Trainer, FitResult], tmp_path: Path) -> None:
    run_dir, ours, result = straight
    theirs = build(tmp_path, IN_STEPS)
    assert theirs.fit(data(), batches(2)).metrics == result.metrics
    assert is_bitwise_equal(weights(ours), weights(theirs))
    assert sorted(steps_in(run_dir)) == sorted(steps_in(tmp_path)) == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("step", [2, 4, 6, 10])
@pytest.mark.parametrize("units", [IN_EPOCHS, IN_STEPS], ids=["epochs", "steps"])
def test_a_resume_in_either_unit_equals_the_run_without_an_interruption(
    units: dict[str, Any], step: int, straight: tuple[Path, Trainer, FitResult], tmp_path: Path
) -> None:
    run_dir, ours, result = straight
    resumed = build(tmp_path, units)
    assert resumed.fit(data(), batches(2), ckpt_path=step_folder(run_dir, step)).metrics == result.metrics
    assert is_bitwise_equal(weights(ours), weights(resumed))


def test_a_finished_run_repeats_no_validation_if_the_unit_changes(
    straight: tuple[Path, Trainer, FitResult], tmp_path: Path
) -> None:
    run_dir, _, result = straight
    resumed = build(tmp_path, IN_STEPS).fit(data(), batches(2), ckpt_path=run_dir)
    assert resumed.metrics == result.metrics
    assert list(resumed.plan) == []


@pytest.mark.parametrize(
    ("units", "settings", "line"),
    [
        (IN_STEPS | {"eval_frequency": 3}, {}, "loop.eval_frequency: 1 epoch -> 3"),
        (IN_STEPS | {"every_n_steps": "1 epoch"}, {}, "checkpoint.every_n_steps: 2 -> 4"),
        (
            IN_STEPS | {"warmup_steps": "1.5 epochs"},
            {"steps_per_epoch": 3, "num_epochs": 4},
            "loop.steps_per_epoch: null -> 3, which a scheduler uses",
        ),
    ],
)
def test_other_steps_are_refused_on_a_resume(
    units: dict[str, Any],
    settings: dict[str, Any],
    line: str,
    straight: tuple[Path, Trainer, FitResult],
    tmp_path: Path,
) -> None:
    with pytest.raises(SettingError) as caught:
        build(tmp_path, units, **settings).fit(data(), batches(2), ckpt_path=straight[0])
    assert f"its run had other settings ({line}); expected the same settings" in str(caught.value)


def test_steps_per_epoch_may_change_if_no_scheduler_uses_it(
    straight: tuple[Path, Trainer, FitResult], tmp_path: Path
) -> None:
    begun = build(tmp_path, IN_STEPS, num_epochs=2)
    begun.fit(data(), batches(2))
    resumed = build(tmp_path, IN_STEPS, num_epochs=4, steps_per_epoch=3)
    assert resumed.fit(data(), batches(2), ckpt_path="last").global_step == 12


def test_checkpoints_at_multiples_of_epochs_are_kept(tmp_path: Path) -> None:
    settings = Checkpointing("1 epoch", keep_last=1, keep_every="3 epochs", at_validations=False)
    ours = trainer(TrainingLoop(num_epochs=10, eval_frequency=None), checkpoint=settings, run_dir=tmp_path)
    ours.fit(batches(2))
    assert sorted(steps_in(tmp_path)) == [6, 12, 18, 20]
    ours.fit(batches(2))
    assert sorted(steps_in(tmp_path)) == [6, 12, 18, 24, 30, 36, 40]
    ours.save_checkpoint()
    assert sorted(steps_in(tmp_path)) == [6, 12, 18, 24, 30, 36, 40]


def test_a_fit_needs_the_length_of_an_epoch(tmp_path: Path) -> None:
    def stream() -> Iterator[Any]:
        yield from batches(8)

    loop = TrainingLoop(num_steps=6, eval_frequency="1 epoch")
    with pytest.raises(SettingError, match=r"^steps_per_epoch=null: .* eval_frequency='1 epoch' needs if the training"):
        trainer(loop).fit(stream(), batches(2))
    loop = TrainingLoop(num_steps=6, eval_frequency="1 epoch", steps_per_epoch=2)
    assert trainer(loop).fit(stream(), batches(2)).plan.eval_every == 2


def constant_rate(told: list[Any], optimizer: Any, steps_per_epoch: int | None = None) -> LambdaLR:
    told.append(steps_per_epoch)
    return LambdaLR(optimizer, lambda step: 1.0)


@pytest.mark.parametrize(
    ("bound", "loop", "expected"),
    [
        ({}, {}, 4),
        ({"steps_per_epoch": None}, {}, 4),
        ({"steps_per_epoch": 7}, {}, 7),
        ({}, {"grad_accum_steps": 3}, 2),
        ({}, {"steps_per_epoch": 3}, 3),
    ],
)
def test_a_scheduler_is_told_the_steps_of_an_epoch(bound: dict[str, Any], loop: dict[str, Any], expected: int) -> None:
    told: list[Any] = []
    trainer(
        TrainingLoop(num_steps=2, **loop), schedulers=functools.partial(constant_rate, told, **bound)
    ).fit(batches(4))  # fmt: skip
    assert told == [expected]


def test_a_scheduler_is_told_nothing_if_the_length_is_unknown() -> None:
    told: list[Any] = []
    trainer(TrainingLoop(num_steps=2), schedulers=functools.partial(constant_rate, told)).fit(iter(batches(4)))
    assert told == [None]


def test_schedulers_of_torch_are_told_nothing_new() -> None:
    ours = trainer(TrainingLoop(num_steps=2), schedulers=functools.partial(OneCycleLR, max_lr=1.0, epochs=3))
    with pytest.raises(ValueError, match="You must define either total_steps OR"):
        ours.fit(batches(4))
