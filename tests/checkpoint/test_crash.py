"""Saves in which an operation fails, the process is killed, or the power is cut.

Each leaves the old or the new checkpoint, and no temporary files after `clean_leftovers`.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loopwright.checkpoint import (
    clean_leftovers,
    read_checkpoint,
    remove_checkpoint,
    resolve,
    step_folder,
    verify_checkpoint,
    write,
    write_checkpoint,
)
from loopwright.errors import CheckpointError, SaveError

Saver = Callable[[int], Path]
StateMaker = Callable[[int], dict[str, Any]]

OPERATIONS = ("mkdir", "open", "write", "fsync", "rename", "unlink")


class Killed(BaseException):
    """Stands for the end of a killed process."""


class FailingOs:
    """`os`, in which operation number ``fail_at`` fails; for `Killed`, all operations after it fail too."""

    def __init__(self, fail_at: int, error: BaseException, disk: Disk | None = None) -> None:
        self.num_operations = 0
        self._fail_at, self._error, self._disk = fail_at, error, disk

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in OPERATIONS:
            return function

        def counted(*arguments: Any) -> Any:
            self.count()
            result = function(*arguments)
            if self._disk is not None:
                self._disk.note(name, arguments, result)
            return result

        return counted

    def disk_usage(self, path: Path) -> Any:
        return shutil.disk_usage(path)

    def rmtree(self, path: Path) -> None:
        for child in path.iterdir():
            self.count()
            child.unlink()
        self.count()
        path.rmdir()

    def count(self) -> None:
        self.num_operations += 1
        is_killed = isinstance(self._error, Killed)
        if self.num_operations == self._fail_at or (is_killed and 0 < self._fail_at < self.num_operations):
            raise self._error


class Disk:
    """The content that would survive a power cut: each file and folder as it was when it was last synced."""

    def __init__(self, root: Path) -> None:
        self._root = os.stat(root).st_ino
        self._paths: dict[int, Any] = {}
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, int]] = {}
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            self._sync(folder)
        for file in (path for path in root.rglob("*") if path.is_file()):
            self._sync(file)

    def note(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        if name == "open":
            self._paths[result] = arguments[0]
        elif name == "fsync":
            self._sync(self._paths[arguments[0]])

    def _sync(self, path: Path) -> None:
        inode = os.stat(path).st_ino
        if path.is_dir():
            self._folders[inode] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self._files[inode] = path.read_bytes()

    def restore(self, path: Path, inode: int | None = None) -> None:
        """Write the content that survived to the new folder ``path``."""
        inode = self._root if inode is None else inode
        path.mkdir()
        for name, child in self._folders.get(inode, {}).items():
            if child in self._files:
                (path / name).write_bytes(self._files[child])
            else:
                self.restore(path / name, child)


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, failing_os: FailingOs) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(write, "os", failing_os)
        patch.setattr(write, "shutil", failing_os)
        yield


def count_operations(monkeypatch: pytest.MonkeyPatch, folder: Path, state: dict[str, Any]) -> int:
    counting = FailingOs(0, OSError())
    with failing(monkeypatch, counting):
        write_checkpoint(folder, state, step=2)
    return counting.num_operations


def saved_position(folder: Path) -> int:
    """Return the step in the state. It differs between the old and the new checkpoint, which have the same name."""
    position: int = read_checkpoint(folder).state["position"]["global_step"]
    return position


@pytest.fixture
def num_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_state: StateMaker) -> int:
    """Number of operations of a save that replaces an older checkpoint."""
    root = tmp_path / "counted"
    write_checkpoint(step_folder(root, 2), make_state(2), step=2)
    number = count_operations(monkeypatch, step_folder(root, 2), make_state(7))
    shutil.rmtree(root)
    return number


def make_run(root: Path, make_state: StateMaker) -> Path:
    """Make a run with checkpoints of steps 1 and 2, and return the folder of step 2."""
    for step in (1, 2):
        write_checkpoint(step_folder(root, step), make_state(step), step=step)
    return step_folder(root, 2)


def test_if_any_operation_fails_the_old_or_the_new_checkpoint_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_state: StateMaker, num_operations: int
) -> None:
    outcomes = set()
    for fail_at in range(1, num_operations + 1):
        root = tmp_path / str(fail_at)
        folder = make_run(root, make_state)
        line = ""
        try:
            with failing(monkeypatch, FailingOs(fail_at, OSError(errno.EIO, "Input/output error"))):
                write_checkpoint(folder, make_state(7), step=2)
        except SaveError as error:
            line = str(error)
        outcomes.add((line.removeprefix(f"{folder}: "), saved_position(folder)))
        clean_leftovers(folder.parent)
        assert sorted(path.name for path in folder.parent.iterdir()) == ["step_00000001", "step_00000002"]
        assert resolve(root) == folder
        shutil.rmtree(root)
    # (fault, 7): only the sync after the rename failed. ("", 7): only the removal of the old checkpoint failed.
    fault = "not saved: Input/output error"
    assert outcomes == {(fault, 2), (fault, 7), ("", 7)}


def test_after_a_kill_at_any_operation_the_old_or_the_new_checkpoint_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_state: StateMaker, num_operations: int
) -> None:
    positions = []
    for fail_at in range(1, num_operations + 1):
        root = tmp_path / str(fail_at)
        folder = make_run(root, make_state)
        with failing(monkeypatch, FailingOs(fail_at, Killed())), pytest.raises(Killed):
            write_checkpoint(folder, make_state(7), step=2)
        clean_leftovers(folder.parent)
        assert sorted(path.name for path in folder.parent.iterdir()) == ["step_00000001", "step_00000002"]
        assert resolve(root) == folder
        positions.append(saved_position(folder))
        shutil.rmtree(root)
    assert positions == sorted(positions)
    assert set(positions) == {2, 7}


def test_after_a_power_cut_at_any_operation_the_old_or_the_new_checkpoint_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_state: StateMaker, num_operations: int
) -> None:
    positions = []
    for fail_at in range(1, num_operations + 2):
        root, survived = tmp_path / f"run_{fail_at}", tmp_path / f"survived_{fail_at}"
        folder = make_run(root, make_state)
        disk = Disk(root)
        try:
            with failing(monkeypatch, FailingOs(fail_at, Killed(), disk)):
                write_checkpoint(folder, make_state(7), step=2)
        except Killed:
            pass
        disk.restore(survived)
        clean_leftovers(survived / "checkpoints")
        assert sorted(path.name for path in (survived / "checkpoints").iterdir()) == ["step_00000001", "step_00000002"]
        positions.append(saved_position(step_folder(survived, 2)))
        shutil.rmtree(root)
        shutil.rmtree(survived)
    assert set(positions) == {2, 7}
    assert positions[-1] == 7


def test_a_first_save_killed_at_any_operation_is_complete_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_state: StateMaker
) -> None:
    number = count_operations(monkeypatch, step_folder(tmp_path / "counted", 2), make_state(2))
    for fail_at in range(1, number + 1):
        folder = step_folder(tmp_path / str(fail_at), 2)
        with failing(monkeypatch, FailingOs(fail_at, Killed())), pytest.raises(Killed):
            write_checkpoint(folder, make_state(2), step=2)
        clean_leftovers(folder.parent)
        if folder.parent.exists():
            for child in folder.parent.iterdir():
                verify_checkpoint(child)


def test_a_finished_first_save_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_state: StateMaker
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    disk = Disk(root)
    with failing(monkeypatch, FailingOs(0, Killed(), disk)):
        write_checkpoint(step_folder(root / "some" / "run", 2), make_state(2), step=2)
    disk.restore(tmp_path / "survived")
    verify_checkpoint(step_folder(tmp_path / "survived" / "some" / "run", 2))


def test_a_removal_killed_at_any_operation_leaves_a_complete_checkpoint_or_none(
    save: Saver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counting, path = FailingOs(0, OSError()), save(1)
    with failing(monkeypatch, counting):
        remove_checkpoint(path)
    assert counting.num_operations == 9  # rename, open and sync the parent, remove five files and their folder
    for fail_at in range(1, counting.num_operations + 1):
        path = save(1)
        with failing(monkeypatch, FailingOs(fail_at, Killed())), pytest.raises(Killed):
            remove_checkpoint(path)
        assert path.exists() == (fail_at == 1)
        if fail_at == 1:
            verify_checkpoint(path)
            remove_checkpoint(path)
        with pytest.raises(CheckpointError, match="contains no checkpoint"):
            resolve(tmp_path)
        clean_leftovers(path.parent)
        assert not list(path.parent.iterdir())


def test_a_power_cut_during_a_removal_leaves_a_complete_checkpoint_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_state: StateMaker
) -> None:
    whole = []
    for fail_at in range(1, 11):
        root, survived = tmp_path / f"run_{fail_at}", tmp_path / f"survived_{fail_at}"
        folder = make_run(root, make_state)
        disk = Disk(root)
        try:
            with failing(monkeypatch, FailingOs(fail_at, Killed(), disk)):
                remove_checkpoint(folder)
        except Killed:
            pass
        disk.restore(survived)
        clean_leftovers(survived / "checkpoints")
        found = sorted((survived / "checkpoints").iterdir())
        whole.append([verify_checkpoint(path).step for path in found])
    assert whole == [[1, 2]] * 3 + [[1]] * 7


class FullDisk(FailingOs):
    """`os` on a disk with ``num_bytes`` of free space. A write that exceeds it is done in part."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__(0, OSError())
        self._num_free = num_bytes

    def write(self, descriptor: int, data: memoryview) -> int:
        if not self._num_free:
            raise OSError(errno.ENOSPC, "No space left on device")
        num_written = os.write(descriptor, data[: self._num_free])
        self._num_free -= num_written
        return num_written


def assert_not_saved(folder: Path, state: dict[str, Any], reason: str) -> None:
    """Saving fails in one line with needed and free bytes. The old checkpoint is intact, no temporary file is left."""
    with pytest.raises(SaveError) as caught:
        write_checkpoint(folder, state, step=2)
    num_needed = re.fullmatch(rf"{folder}: not saved: {reason}; ([\d,]+) bytes needed, [\d,]+ free", str(caught.value))
    assert num_needed is not None
    data_files = [file for file in folder.iterdir() if file.name != "manifest.json"]
    assert int(num_needed[1].replace(",", "")) == sum(file.stat().st_size for file in data_files)
    assert saved_position(folder) == 2
    assert sorted(path.name for path in folder.parent.iterdir()) == ["step_00000001", "step_00000002"]


def test_a_full_disk_is_reported_in_one_line_and_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_state: StateMaker
) -> None:
    folder = make_run(tmp_path, make_state)
    needed = sum(file.stat().st_size for file in folder.iterdir())
    for level in range(50):
        with failing(monkeypatch, FullDisk(needed * level // 50)):
            assert_not_saved(folder, {**make_state(2), "position": {"global_step": 7}}, "No space left on device")
    with failing(monkeypatch, FullDisk(needed)):
        write_checkpoint(folder, {**make_state(2), "position": {"global_step": 7}}, step=2)
    assert saved_position(folder) == 7


def test_a_file_size_limit_leaves_the_old_checkpoint_and_no_temporary_files(
    tmp_path: Path, make_state: StateMaker
) -> None:
    folder = make_run(tmp_path, make_state)
    largest = max(file.stat().st_size for file in folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for level in range(50):
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest * level // 50, hard))
        try:
            assert_not_saved(folder, {**make_state(2), "position": {"global_step": 7}}, "File too large")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_is_shorter_on_disk_than_written_fails_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_state: StateMaker
) -> None:
    class Losing(FailingOs):
        def stat(self, path: Path) -> os.stat_result:
            if path.name == "state.safetensors":
                os.truncate(path, 5)
            return os.stat(path)

    folder = make_run(tmp_path, make_state)
    with failing(monkeypatch, Losing(0, OSError())), pytest.raises(SaveError, match="has 5 bytes on the disk, but "):
        write_checkpoint(folder, make_state(7), step=2)
    assert saved_position(folder) == 2


def test_an_interrupt_leaves_no_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_state: StateMaker
) -> None:
    folder = make_run(tmp_path, make_state)
    with failing(monkeypatch, FailingOs(8, KeyboardInterrupt())), pytest.raises(KeyboardInterrupt):
        write_checkpoint(folder, make_state(7), step=2)
    assert len(list(folder.parent.iterdir())) == 2
