"""A checkpoint that cannot be written: the fit stops, or continues and tries again, and always reports it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.checkpoint import verify_checkpoint, write
from loopwright.data import Loader
from loopwright.errors import CheckpointError, SaveError, SettingError
from tiny import Recorder, Regression, batches, is_bitwise_equal, rows, trainer, weights

NUM_STEPS = 10


class Disk:
    """Replaces `os` in the writing module: while `is_full`, every write fails."""

    def __init__(self) -> None:
        self.is_full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(descriptor, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(write, "os", made)
    return made


def build(run_dir: Path, on_save_error: str = "stop", *callbacks: Callback, loop: Any = None) -> Any:
    checkpoint = Checkpointing(1, keep_last=2, on_save_error=on_save_error)
    listeners = {str(number): callback for number, callback in enumerate(callbacks)}
    loop = loop or TrainingLoop(max_steps=NUM_STEPS)
    return trainer(loop, checkpoint=checkpoint, callbacks=listeners, run_dir=run_dir)


def at(steps: set[int], act: Callable[[bool], None]) -> Callback:
    """Return a callback that calls ``act(step in steps)`` after each step, before its save."""
    return Recorder(lambda ours, *_: act(ours.global_step in steps))


def found(run_dir: Path) -> list[int]:
    """Return the steps of the checkpoints; all must be valid, and there must be no other files."""
    return [verify_checkpoint(folder).step for folder in sorted((run_dir / "checkpoints").iterdir())]


def test_by_default_the_fit_ends_with_one_line_and_the_last_good_checkpoint(tmp_path: Path, disk: Disk) -> None:
    fill = at({4}, lambda is_full: setattr(disk, "is_full", is_full))
    with pytest.raises(SaveError) as caught:
        build(tmp_path, "stop", fill).fit(batches(5))
    line = f"{tmp_path}/checkpoints/step_00000004: not saved: No space left on device; "
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
    assert not isinstance(caught.value, CheckpointError)
    assert found(tmp_path) == [2, 3]
    disk.is_full = False
    straight, resumed = build(tmp_path / "straight"), build(tmp_path)
    straight.fit(batches(5))
    resumed.fit(batches(5), ckpt_path="last")
    assert is_bitwise_equal(weights(resumed), weights(straight))


@pytest.mark.parametrize("steps", [{step} for step in range(1, NUM_STEPS)] + [{1, 2, 3, 5, 8, 9}], ids=str)
def test_a_fit_that_continues_tries_again(
    tmp_path: Path, disk: Disk, steps: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    fill = at(steps, lambda is_full: setattr(disk, "is_full", is_full))
    ours = build(tmp_path, "continue", fill)
    assert ours.fit(batches(5)).global_step == NUM_STEPS
    saved = [step for step in range(1, NUM_STEPS + 1) if step not in steps]
    assert found(tmp_path) == saved[-2:]
    assert len(caplog.messages) == len(steps)
    for step, said in zip(sorted(steps), caplog.messages, strict=True):
        newest = f"step {max(each for each in saved if each < step)}" if min(saved) < step else "none"
        assert said.startswith(f"{tmp_path}/checkpoints/step_{step:08d}: not saved: No space left on device; ")
        assert said.endswith(f" free; training continues. Newest checkpoint: {newest}.")
    disk.is_full = False
    straight = build(tmp_path / "straight")
    straight.fit(batches(5))
    assert is_bitwise_equal(weights(ours), weights(straight))


def test_an_error_in_the_last_save_always_ends_the_fit(tmp_path: Path, disk: Disk) -> None:
    fill = at({NUM_STEPS}, lambda is_full: setattr(disk, "is_full", is_full))
    with pytest.raises(SaveError, match="step_00000010: not saved: "):
        build(tmp_path, "continue", fill).fit(batches(5))
    assert found(tmp_path) == [8, 9]


class Stopping(Callback):
    """Stops the fit after a validation, and sets whether the disk is full from then on."""

    def __init__(self, disk: Disk, is_full: bool) -> None:
        self.disk, self.is_full = disk, is_full

    def on_validate_end(self, ours: Any, *_: Any) -> None:
        self.disk.is_full = self.is_full
        ours.stop("enough")


def test_a_stop_after_a_save_that_failed_tries_again(tmp_path: Path, disk: Disk) -> None:
    fill = at({4}, lambda is_full: setattr(disk, "is_full", is_full))
    loop = TrainingLoop(max_steps=NUM_STEPS, eval_frequency=4)
    stopped = build(tmp_path, "continue", fill, Stopping(disk, is_full=False), loop=loop)
    assert stopped.fit(batches(5), [batches(1)]).state == "stopped"
    assert found(tmp_path) == [3, 4]
    failed = build(tmp_path / "full", "continue", fill, Stopping(disk, is_full=True), loop=loop)
    with pytest.raises(SaveError, match="step_00000004: not saved: "):
        failed.fit(batches(5), [batches(1)])
    assert found(tmp_path / "full") == [2, 3]


def replace_by_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


GONE: dict[str, tuple[Callable[[Path], object], str]] = {
    "run directory removed": (shutil.rmtree, "the folder RUN no longer exists"),
    "run directory moved away": (lambda run: run.rename(run.parent / "away"), "the folder RUN no longer exists"),
    "run directory a file": (replace_by_a_file, "the folder RUN no longer exists"),
    "checkpoints a file": (lambda run: replace_by_a_file(run / "checkpoints"), "Not a directory"),
    "checkpoints a broken link": (
        lambda run: (shutil.rmtree(run / "checkpoints"), (run / "checkpoints").symlink_to("/nowhere/at/all")),
        "No such file or directory",
    ),
}


@pytest.mark.parametrize("how", GONE)
@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_folder_that_disappears_is_one_line_and_is_not_created_again(tmp_path: Path, how: str, policy: str) -> None:
    run_dir = tmp_path / "run"
    act, reason = GONE[how]
    ours = build(run_dir, policy, at({4}, lambda is_now: act(run_dir) if is_now else None))
    with pytest.raises(SaveError) as caught:
        ours.fit(batches(5))
    step = 4 if policy == "stop" else NUM_STEPS
    expected = f"{run_dir}/checkpoints/step_{step:08d}: not saved: {reason.replace('RUN', str(run_dir))}"
    assert str(caught.value) == expected
    assert not list(tmp_path.glob("run/**/step_*"))


def test_saves_continue_when_the_disk_is_back(tmp_path: Path) -> None:
    run_dir, away = tmp_path / "run", tmp_path / "away"
    leave = at({4}, lambda is_now: run_dir.rename(away) if is_now else None)
    return_ = at({7}, lambda is_now: away.rename(run_dir) if is_now else None)
    build(run_dir, "continue", leave, return_).fit(batches(5))
    assert found(run_dir) == [9, 10]


def test_a_folder_of_checkpoints_that_a_user_removed_is_created_again(tmp_path: Path) -> None:
    remove = at({4}, lambda is_now: shutil.rmtree(tmp_path / "checkpoints") if is_now else None)
    build(tmp_path, "stop", remove).fit(batches(5))
    assert found(tmp_path) == [9, 10]


@pytest.mark.parametrize("policy", ["stop", "continue"])
@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a file system in which no folder can be created")
def test_a_folder_that_is_not_writable_is_one_line(policy: str) -> None:
    with pytest.raises(SettingError, match=r"^run_dir='/sys/kernel/run': expected a directory that exists or [^\n]+$"):
        build(Path("/sys/kernel/run"), policy)


def test_an_unusable_checkpoint_folder_is_refused_before_training(tmp_path: Path) -> None:
    for name in ("linked", "taken"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked" / "checkpoints").symlink_to(tmp_path)
    (tmp_path / "taken" / "checkpoints").touch()
    for name, message in (
        ("linked", "linked/checkpoints: a symbolic link, which a resume does not follow; expected a folder"),
        ("taken", "taken/checkpoints is not a folder in which checkpoints can be written"),
    ):
        ours = build(tmp_path / name)
        with pytest.raises(SaveError, match=message):
            ours.fit(batches(5))
        assert ours.global_step == 0


def test_a_model_that_cannot_be_saved_is_refused_before_training(tmp_path: Path) -> None:
    class Sparse(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("graph", torch.eye(2).to_sparse(), persistent=False)

    ours = trainer(model=Sparse, checkpoint=Checkpointing(), run_dir=tmp_path)
    with pytest.raises(
        SettingError, match=r"^buffers\.graph: expected a dense, unquantized tensor with data, not a sparse_"
    ):
        ours.fit(batches(5))
    assert ours.global_step == 0
    assert trainer(model=Sparse).fit(batches(5)).global_step == 5


def test_a_model_that_takes_its_shape_from_the_data_can_be_saved(tmp_path: Path) -> None:
    class Lazy(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.layers[0] = torch.nn.LazyLinear(8)

    val = Loader(rows(8), batch_size=4)
    ours = trainer(model=Lazy, checkpoint=Checkpointing(), run_dir=tmp_path)
    ours.fit(batches(5))
    assert found(tmp_path) == [5]
    assert ours.validate(val, ckpt_path="last")
    # A new model with lazy layers cannot load weights before its first batch.
    said = r"the model has lazy layers, so these tensors have no shape yet: layers\.0\.weight, layers\.0\.bias; "
    for call in (
        lambda new: new.fit(batches(5), ckpt_path="last"),
        lambda new: new.fit(batches(5), init_from=tmp_path),
        lambda new: new.validate(val, ckpt_path="last"),
        lambda new: new.validate_all(val, ckpt_paths=tmp_path),
    ):
        with pytest.raises(CheckpointError, match=said):
            call(trainer(model=Lazy, run_dir=tmp_path))


def test_saving_by_hand_raises_the_same(tmp_path: Path, disk: Disk) -> None:
    disk.is_full = True
    with pytest.raises(SaveError, match="mine: not saved: No space left on device; "):
        trainer().save_checkpoint(tmp_path / "mine")
    assert not list(tmp_path.iterdir())
