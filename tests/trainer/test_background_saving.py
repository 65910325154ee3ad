"""Saving in the background writes the same checkpoints as in the foreground, while the fit continues."""

from __future__ import annotations

import errno
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from loopwright import Callback, Checkpointing, TrainingLoop, ValidationLoop
from loopwright.callbacks import EarlyStopping, ExponentialMovingAverage
from loopwright.checkpoint import HostCopies, read_checkpoint, resolve, step_folder, verify_checkpoint, write
from loopwright.data import Loader
from loopwright.errors import SaveError, SettingTypeError
from loopwright.trainer.background import BackgroundTask
from tiny import Recorder, adamw, batches, is_bitwise_equal, rows, trainer, weights

SECONDS = 60  # time limit of a test that waits for another thread


class Disk:
    """Replaces `os` in the writing module: calls ``before(name, number)`` before each write, sync and rename."""

    def __init__(self, before: Callable[[str, int], object]) -> None:
        self.num_calls = 0
        self._before = before

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in ("write", "fsync", "rename"):
            return function

        def call(*arguments: Any) -> Any:
            self.num_calls += 1
            self._before(name, self.num_calls)
            return function(*arguments)

        return call


@pytest.fixture
def put_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, int], object]], Disk]:
    def put(before: Callable[[str, int], object]) -> Disk:
        disk = Disk(before)
        monkeypatch.setattr(write, "os", disk)
        return disk

    return put


def build(run_dir: Path, num_steps: int, *callbacks: Callback, eval_frequency: int = 3, **settings: Any) -> Any:
    checkpoint = Checkpointing(**{"every_n_steps": 1, "background": True, **settings})
    listeners = {str(number): callback for number, callback in enumerate(callbacks)}
    return trainer(
        TrainingLoop(max_steps=num_steps, eval_frequency=eval_frequency), optimizer=adamw, checkpoint=checkpoint,
        callbacks=listeners, run_dir=run_dir,
    )  # fmt: skip


def found(run_dir: Path) -> list[int]:
    """Return the steps of the checkpoints; all must be valid, and there must be no other files."""
    return [verify_checkpoint(folder).step for folder in sorted((run_dir / "checkpoints").iterdir())]


def files(run_dir: Path) -> dict[str, bytes]:
    """The bytes of each file, except the lock, which contains a time."""
    found = [file for file in run_dir.rglob("*") if file.is_file() and file.name != ".lock"]
    return {str(file.relative_to(run_dir)): file.read_bytes() for file in found}


@pytest.mark.parametrize("settings", [{}, {"every_n_steps": 2, "keep_last": 1}, {"keep_last": 2, "keep_every": 4}])
def test_background_and_foreground_write_the_same_bytes(tmp_path: Path, settings: dict[str, Any]) -> None:
    left: list[dict[str, bytes]] = []
    for background in (False, True):
        run_dir = tmp_path / str(background)
        callbacks = (ExponentialMovingAverage(decay=0.9), EarlyStopping(patience=100))
        ours = build(run_dir, 11, *callbacks, **settings, background=background)
        ours.fit(batches(5), Loader(rows(8), batch_size=4))
        left.append(files(run_dir))
    assert left[0] == left[1] and len(left[0]) >= 10


class Ahead(Callback):
    """Delays each save until the next step has ended, and stores the weights of each step."""

    def __init__(self, last_step: int) -> None:
        self.weights: dict[int, dict[str, torch.Tensor]] = {}
        self._last_step = last_step
        self._saved = self._done = 0
        self._moved = threading.Condition()

    def on_train_batch_end(self, ours: Any, *_: Any) -> None:
        self.weights[ours.global_step] = weights(ours)
        with self._moved:
            self._done = ours.global_step
            self._moved.notify_all()

    def on_save_checkpoint(self, ours: Any, state_dict: dict[str, Any]) -> None:
        self._saved = ours.global_step

    def wait(self, *_: Any) -> None:
        with self._moved:
            assert self._moved.wait_for(lambda: self._done > self._saved or self._done == self._last_step, SECONDS)


def test_each_of_100_saves_holds_the_weights_of_its_step(tmp_path: Path, put_disk: Any) -> None:
    ahead = Ahead(200)
    put_disk(ahead.wait)
    build(tmp_path, 200, ahead, every_n_steps=2).fit(batches(5))
    equal = [
        is_bitwise_equal(read_checkpoint(step_folder(tmp_path, step)).state["model"], ahead.weights[step])
        for step in range(2, 201, 2)
    ]
    assert (sum(equal), len(equal)) == (100, 100)
    assert not is_bitwise_equal(ahead.weights[2], ahead.weights[3])


def test_two_saves_never_run_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_at_once, most, threads = 0, 0, set()
    original = write._write_files

    def counted(*arguments: Any) -> Any:
        nonlocal num_at_once, most
        num_at_once += 1
        most = max(most, num_at_once)
        threads.add(threading.current_thread().name)
        try:
            return original(*arguments)
        finally:
            num_at_once -= 1

    monkeypatch.setattr(write, "_write_files", counted)
    ours = build(tmp_path, 12, Recorder(lambda ours, *_: ours.save_checkpoint(tmp_path / "by_hand" / "c")))
    ours.fit(batches(5))
    assert most == 1
    assert threads == {"MainThread", "loopwright-save"}
    assert found(tmp_path) == [*range(1, 13)]


@pytest.mark.parametrize("at", range(1, 21))
def test_a_failure_of_any_operation_reaches_the_user(tmp_path: Path, put_disk: Any, at: int) -> None:
    """Each of the twenty cases fails at another write, sync or rename of the first two saves."""

    def fail(name: str, number: int) -> None:
        if number == at:
            raise OSError(errno.EIO, "Input/output error")

    disk = put_disk(fail)
    ours = build(tmp_path, 6)
    with pytest.raises(SaveError, match=r"step_0000000[12]: not saved: Input/output error$") as caught:
        ours.fit(batches(5))
    failed = 1 if "step_00000001" in str(caught.value) else 2
    assert ours.global_step == failed + 1  # the error is raised at the next save
    assert disk.num_calls >= at
    assert resolve(tmp_path).name in ("step_00000001", "step_00000002") if failed == 2 else True


def test_a_failure_of_the_last_save_ends_the_fit(tmp_path: Path, put_disk: Any) -> None:
    is_full = False

    def fail(name: str, number: int) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def fill(ours: Any, *_: Any) -> None:
        nonlocal is_full
        if ours.global_step == 4:
            ours.validate(Loader(rows(4), batch_size=4), ckpt_path="last")  # waits for the running save
            is_full = True

    put_disk(fail)
    for policy in ("stop", "continue"):
        is_full = False
        with pytest.raises(SaveError, match="step_00000004: not saved: No space left on device; "):
            build(tmp_path / policy, 4, Recorder(fill), on_save_error=policy).fit(batches(5))
        assert found(tmp_path / policy) == [1, 2, 3]


def test_a_fit_that_continues_reports_the_error_at_the_next_save(
    tmp_path: Path, put_disk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: str, number: int) -> None:
        if number == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    put_disk(fail)
    ours = build(tmp_path, 4, on_save_error="continue")
    assert ours.fit(batches(5)).global_step == 4
    assert found(tmp_path) == [2, 3, 4]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{tmp_path}/checkpoints/step_00000001: not saved: No space left on device; ")
    assert caplog.messages[0].endswith("training continues. Newest checkpoint: none.")


@pytest.mark.parametrize("what", ["save_checkpoint", "validate_all", "validate_all of checkpoints"])
def test_a_fit_that_continues_allows_other_calls_after_the_error(tmp_path: Path, put_disk: Any, what: str) -> None:
    def fail(name: str, number: int) -> None:
        if number == num_before + 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    def act(ours: Any, *_: Any) -> None:
        if ours.global_step != 3:  # the save of step 2 is running or has failed
            return
        if what == "save_checkpoint":
            ours.save_checkpoint(tmp_path / "own")
        else:
            pattern = tmp_path / "checkpoints" / "step_*" if "of" in what else None
            ours.validate_all(Loader(rows(4), batch_size=4), ckpt_paths=pattern)

    disk = put_disk(lambda name, number: None)
    build(tmp_path / "before", 1).fit(batches(5))
    num_before = disk.num_calls
    put_disk(fail)
    assert build(tmp_path, 4, Recorder(act), on_save_error="continue").fit(batches(5)).global_step == 4
    assert found(tmp_path) == [1, 3, 4]


def test_a_save_that_reads_back_differently_gets_no_name_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = write.verify_checkpoint

    def damage_and_verify(folder: Path) -> Any:
        if folder.name.endswith("step_00000003"):
            file = folder / "model.safetensors"
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
        return original(folder)

    monkeypatch.setattr(write, "verify_checkpoint", damage_and_verify)
    with pytest.raises(SaveError, match=r"step_00000003: not saved: the files on the disk differ .*model\.safetensors"):
        build(tmp_path, 6, keep_last=1).fit(batches(5))
    assert found(tmp_path) == [2]


class Threads(Callback):
    """Records the steps and threads in which `on_after_save_checkpoint` is called."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str, bool, str]] = []

    def on_after_save_checkpoint(self, ours: Any, ckpt_path: Path) -> None:
        thread = threading.current_thread().name
        self.told.append((ours.global_step, ckpt_path.name, ckpt_path.is_dir(), thread))


def test_the_hook_after_a_save_is_called_when_the_save_has_ended(tmp_path: Path) -> None:
    threads = Threads()
    build(tmp_path, 5, threads, every_n_steps=2).fit(batches(5))
    told = [(4, "step_00000002"), (5, "step_00000004"), (5, "step_00000005")]
    assert threads.told == [(*each, True, "MainThread") for each in told]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_failed_fit_waits_for_the_save(
    tmp_path: Path, put_disk: Any, error: type[BaseException], fails: bool
) -> None:
    has_raised, threads = threading.Event(), Threads()

    def hold(name: str, number: int) -> None:
        has_raised.wait(SECONDS)
        if fails:
            raise OSError(errno.EIO, "Input/output error")

    def stop(ours: Any, *_: Any) -> None:
        if ours.global_step == 2:
            has_raised.set()
            raise error("enough")

    put_disk(hold)
    with pytest.raises(error, match="enough") as caught:
        build(tmp_path, 5, Recorder(stop), threads).fit(batches(5))
    notes = [note for note in caught.value.__notes__ if note.startswith("While a checkpoint was saved: SaveError: ")]
    assert (len(notes), found(tmp_path)) == ((1, []) if fails else (0, [1]))
    assert [name for _, name, *_ in threads.told] == ([] if fails else ["step_00000001"])


class Held:
    """Blocks the first save in the middle of a file until the ``nth`` call of `wait`; then it can fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
        self.num_waits = 0
        self.fails = self.sends_signals = self._has_begun = False
        self.let_go = threading.Event()
        self.is_waited_for = threading.Event()
        self._nth = nth
        original = BackgroundTask.wait

        def wait(task: BackgroundTask) -> BaseException | None:
            self.num_waits += 1
            self.is_waited_for.set()
            if self.num_waits == self._nth:
                self.let_go.set()
            return original(task)

        monkeypatch.setattr(BackgroundTask, "wait", wait)

    def before(self, name: str, number: int) -> None:
        if name == "write" and not self._has_begun:
            self._has_begun = True
            if self.sends_signals:
                assert self.is_waited_for.wait(SECONDS)
                for each in (signal.SIGINT, signal.SIGTERM):  # two equal signals could be merged into one
                    signal.pthread_kill(threading.main_thread().ident or 0, each)
            assert self.let_go.wait(SECONDS)
            if self.fails:
                raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, put_disk: Any) -> Iterator[Held]:
    """Return a `Held` whose first save is left running: two signals arrive while the end of the fit waits for it."""
    each = Held(monkeypatch, 2)
    each.sends_signals = True
    put_disk(each.before)
    yield each
    each.let_go.set()
    for thread in threading.enumerate():
        if thread.name == "loopwright-save":
            thread.join()


def test_the_next_fit_completes_a_save_left_by_a_second_signal(tmp_path: Path, held: Held) -> None:
    threads = Threads()
    ours = build(tmp_path, 1, threads)
    with pytest.raises(SystemExit):
        ours.fit(batches(5))
    assert (held.num_waits, threads.told) == (1, [])
    ours.fit(batches(5))
    assert threads.told == [(1, "step_00000001", True, "MainThread")]
    assert found(tmp_path) == [1]


@pytest.mark.parametrize("fails", [False, True])
def test_closing_waits_for_a_save_left_by_a_second_signal(tmp_path: Path, held: Held, fails: bool) -> None:
    held.fails = fails
    threads = Threads()
    ours = build(tmp_path, 1, threads)
    with pytest.raises(SystemExit):
        ours.fit(batches(5))
    with pytest.raises(SaveError, match="step_00000001: not saved") if fails else nullcontext():
        ours.close()
    assert ([name for _, name, *_ in threads.told], found(tmp_path)) == (
        ([], []) if fails else (["step_00000001"], [1])
    )
    ours.close()
    assert held.num_waits == 2


def test_a_with_block_that_fails_waits_and_notes_the_error_of_the_save(tmp_path: Path, held: Held) -> None:
    held.fails = True
    with pytest.raises(ValueError, match="enough") as caught, build(tmp_path, 1) as ours:
        with pytest.raises(SystemExit):
            ours.fit(batches(5))
        raise ValueError("enough")
    (note,) = caught.value.__notes__
    assert note.startswith("While the trainer was closed: SaveError: ") and held.num_waits == 2


def test_a_with_block_ended_by_a_second_signal_does_not_wait(tmp_path: Path, held: Held) -> None:
    with pytest.raises(SystemExit), build(tmp_path, 1) as ours:
        ours.fit(batches(5))
    assert (held.num_waits, list((tmp_path / "checkpoints").glob("step_*"))) == (1, [])


def test_validating_checkpoints_waits_for_a_running_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put_disk: Any
) -> None:
    def look(ours: Any, *_: Any) -> None:
        if ours.global_step == 2:
            pattern = tmp_path / "checkpoints" / "step_*"
            rows_of.extend(ours.validate_all(Loader(rows(4), batch_size=4), ckpt_paths=pattern))

    rows_of: list[Any] = []
    put_disk(Held(monkeypatch, 1).before)
    build(tmp_path, 3, Recorder(look)).fit(batches(5))
    assert [row.checkpoint for row in rows_of] == [step_folder(tmp_path, 1)]


def test_a_copy_has_the_dtype_of_its_source() -> None:
    copies = HostCopies()
    for dtype in (torch.float32, torch.float64):
        tensor = torch.full((3,), 0.1, dtype=dtype)
        copy = copies.take("model", "weight", tensor)
        copies.end()
        assert copy.dtype == dtype and torch.equal(copy, tensor)


def test_the_memory_of_removed_names_is_freed() -> None:
    copies = HostCopies()
    taken = {name: weakref.ref(copies.take("model", name, torch.ones(3))) for name in ("kept", "gone")}
    copies.end()
    again = copies.take("model", "kept", torch.zeros(3))
    copies.end()
    assert (taken["kept"]() is again, taken["gone"]()) == (True, None)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    straight = build(tmp_path / "straight", 9, background=False)
    straight.fit(batches(5), Loader(rows(8), batch_size=4))
    first = build(tmp_path / "cut", 9, Recorder(lambda ours, *_: ours.global_step == 4 and ours.stop("cut")))
    first.fit(batches(5), Loader(rows(8), batch_size=4))
    resumed = build(tmp_path / "cut", 9)
    resumed.fit(batches(5), Loader(rows(8), batch_size=4), ckpt_path="last")
    assert is_bitwise_equal(weights(resumed), weights(straight))


def test_the_previous_best_stays_if_a_better_checkpoint_is_lost(
    tmp_path: Path, put_disk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fails, val = False, Loader(rows(20), batch_size=4)  # the training data, so that each step improves the loss

    def fail(name: str, number: int) -> None:
        if fails:
            raise OSError(errno.EIO, "Input/output error")

    def look(ours: Any, *_: Any) -> None:
        nonlocal fails
        if ours.global_step == 6:
            ours.validate(val, ckpt_path="last")  # waits until step 4 is saved
            fails = True
        if ours.global_step == 7:
            assert ours.best.step == 6
            ours.validate(val, ckpt_path="best", loop=Looked(looked))
            fails = False

    put_disk(fail)
    looked: list[Path | None] = []
    ours = build(tmp_path, 7, Recorder(look), every_n_steps=2, keep_last=1, on_save_error="continue", eval_frequency=2)
    ours.fit(batches(5), val)
    assert looked == [step_folder(tmp_path, 4)]
    assert any("step_00000006: not saved" in line for line in caplog.messages)


def test_an_interrupted_save_is_not_the_best(tmp_path: Path, put_disk: Any) -> None:
    def break_off(name: str, number: int) -> None:
        if ours.global_step == 3:
            raise KeyboardInterrupt

    class Stopping(Callback):
        def on_validate_end(self, *_: Any) -> None:
            if ours.global_step == 3:
                ours.stop("enough")  # a stop saves the step that was validated

    put_disk(break_off)
    val = Loader(rows(20), batch_size=4)  # the training data, so that each step improves the loss
    ours = build(tmp_path, 5, Stopping(), background=False, every_n_steps=2, eval_frequency=1)
    with pytest.raises(KeyboardInterrupt):
        ours.fit(batches(5), val)
    looked: list[Path | None] = []
    ours.validate(val, ckpt_path="best", loop=Looked(looked))
    assert looked == [step_folder(tmp_path, 2)]


class Looked(ValidationLoop):
    """Records the checkpoints that are validated."""

    def __init__(self, looked: list[Path | None]) -> None:
        super().__init__()
        self.looked = looked

    def on_validate_start(self, ours: Any, *_: Any) -> None:
        self.looked.append(ours.validation_checkpoint)


@pytest.mark.parametrize("given", ["true", 1, None])
def test_background_is_true_or_false(given: Any) -> None:
    with pytest.raises(SettingTypeError, match=r"^background=.*: expected true or false\.$"):
        Checkpointing(background=given)
