"""The store of an index: what was changed last is on the disk at the end, and only one process may write."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swept as small_sweeps
from loopwright.errors import CheckpointError
from loopwright.experiment.sweep import store as store_module
from loopwright.experiment.sweep.index import SweepIndex, with_results
from loopwright.experiment.sweep.index_file import read_index, write_index
from loopwright.experiment.sweep.store import SweepStore, opened_store


@given(index=small_sweeps.sweeps(max_groups=4))
def test_an_index_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, index: SweepIndex) -> None:
    directory = tmp_path_factory.mktemp("index")
    write_index(directory, index)
    found = read_index(directory)
    again = directory / "again"
    again.mkdir()
    write_index(again, found)
    assert (again / "sweep.json").read_bytes() == (directory / "sweep.json").read_bytes()
    assert [path.name for path in directory.iterdir() if path.is_file()] == ["sweep.json"]


@given(order=st.permutations(range(4)))
def test_changes_are_in_memory_at_once_and_on_the_disk_at_the_end(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    directory = tmp_path_factory.mktemp("store")
    index = small_sweeps.swept([{"lr": 1}, {"lr": 2}], [["pending"] * 2] * 2)
    with opened_store(directory, index) as store:
        assert read_index(directory) == with_results(index)
        for number in order:
            job = replace(index.jobs[number], state="done", objective=float(number))
            store.change(job)
            assert store.index.jobs[number] == job
        store.set(state="done")
    assert read_index(directory) == store.index
    assert [group.mean for group in store.index.groups] == [0.5, 2.5]
    assert store.index.best is not None and store.index.best.group == 0


def test_changes_in_quick_succession_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(store_module, "write_index", lambda directory, index: written.append(index.state))
    monkeypatch.setattr(store_module, "_SECONDS_BETWEEN_WRITES", 1000)
    store = SweepStore(tmp_path, small_sweeps.swept([{}], [["pending"]]))
    store.flush()
    for state in ("running", "failed", "done"):
        store.set(state=state)
    assert written == ["done"]  # the state of the index that was flushed first
    store.set(state="interrupted")
    store.flush()
    assert written == ["done", "interrupted"]


def test_the_index_is_written_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), opened_store(tmp_path, small_sweeps.swept([{}], [["pending"]])) as store:
        store.set(state="interrupted")
        raise KeyboardInterrupt
    assert read_index(tmp_path).state == "interrupted"


def test_a_second_store_is_refused(tmp_path: Path, locked: Callable[[Path], AbstractContextManager[None]]) -> None:
    index = small_sweeps.swept([{}], [["pending"]])
    with (
        locked(tmp_path),
        pytest.raises(CheckpointError, match="in use by process 4711"),
        opened_store(tmp_path, index),
    ):
        raise AssertionError
    assert not (tmp_path / "sweep.json").exists()
