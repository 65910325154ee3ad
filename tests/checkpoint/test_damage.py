"""Any damage to the newest checkpoint is found and reported in one line, and the checkpoint before it is used."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from loopwright.checkpoint import read_checkpoint, resolve, verify_checkpoint
from loopwright.errors import CheckpointError
from sealing import write_manifest

Saver = Callable[[int], Path]

FILES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json", "state.safetensors"]
NUM_FLIPS = 200  # bits flipped in each file, one at a time
NUM_TRUNCATIONS = 60  # lengths that each file is cut to


class Run:
    """A run with two checkpoints. The tests damage and repair the newest one."""

    def __init__(self, save: Saver, caplog: pytest.LogCaptureFixture) -> None:
        self.good, self.newest = save(1), save(2)
        self.run_dir = self.newest.parent.parent
        self.caplog = caplog
        self.whole = {name: (self.newest / name).read_bytes() for name in FILES}
        self.num_found = 0
        caplog.set_level(logging.WARNING, logger="loopwright")

    def assert_found(self, name: str, what: str = "") -> None:
        """Every reader reports the damage in one line with folder and file, and `resolve` returns the older one."""
        self.caplog.clear()
        assert resolve(self.run_dir) == self.good
        (warning,) = self.caplog.messages
        assert warning.startswith(f"{self.newest}: {name}: {what}")
        assert warning.endswith("; using step_00000001 instead.") and "\n" not in warning
        for read in (read_checkpoint, verify_checkpoint):
            with pytest.raises(CheckpointError) as caught:
                read(self.newest)
            assert str(caught.value).startswith(f"{self.newest}: {name}: {what}") and "\n" not in str(caught.value)
        self.num_found += 1

    def repair(self) -> None:
        for name, data in self.whole.items():
            (self.newest / name).write_bytes(data)


@pytest.fixture
def run(save: Saver, caplog: pytest.LogCaptureFixture) -> Run:
    return Run(save, caplog)


def test_every_flipped_bit_is_found(run: Run) -> None:
    chance = random.Random(0)
    for name in FILES:
        for bit in chance.sample(range(len(run.whole[name]) * 8), NUM_FLIPS):
            damaged = bytearray(run.whole[name])
            damaged[bit // 8] ^= 1 << bit % 8
            (run.newest / name).write_bytes(damaged)
            run.assert_found(name)
        run.repair()
    assert run.num_found == 1000
    assert resolve(run.run_dir) == run.newest


def test_every_truncation_and_addition_is_found(run: Run) -> None:
    chance = random.Random(0)
    for name in FILES:
        size = len(run.whole[name])
        for length in {0, 1, size - 1, *chance.sample(range(size), min(size, NUM_TRUNCATIONS))}:
            (run.newest / name).write_bytes(run.whole[name][:length])
            run.assert_found(name)
        (run.newest / name).write_bytes(run.whole[name] + b"\n")
        run.assert_found(name)
        run.repair()
    assert run.num_found >= 200
    assert resolve(run.run_dir) == run.newest


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_empty_or_from_another_step_is_found(run: Run, name: str) -> None:
    (run.newest / name).unlink()
    run.assert_found(name, "missing")
    (run.newest / name).touch()
    run.assert_found(name)
    shutil.copy(run.good / name, run.newest / name)
    if name == "manifest.json":
        run.assert_found(name, "belongs to step 1, but the folder is named after another step")
    else:
        run.assert_found(name)
    run.repair()
    verify_checkpoint(run.newest)


def test_files_that_all_come_from_another_step_are_found(run: Run) -> None:
    shutil.copytree(run.good, run.newest, dirs_exist_ok=True)
    run.assert_found("manifest.json", "belongs to step 1, but the folder is named after another step")


def test_two_files_swapped_with_each_other_are_found(run: Run) -> None:
    (run.newest / "model.safetensors").write_bytes(run.whole["state.safetensors"])
    (run.newest / "state.safetensors").write_bytes(run.whole["model.safetensors"])
    with pytest.raises(CheckpointError, match=r"(model|state)\.safetensors: "):
        verify_checkpoint(run.newest)
    assert resolve(run.run_dir) == run.good


def test_an_empty_checkpoint_folder_is_found(run: Run) -> None:
    for name in FILES:
        (run.newest / name).unlink()
    run.assert_found("manifest.json", "missing")


def test_a_manifest_of_another_schema_is_reported_with_its_version(run: Run) -> None:
    write_manifest(run.newest, {**json.loads(run.whole["manifest.json"]), "schema": 3, "loopwright": "7.1"})
    run.assert_found("manifest.json", "schema=3: expected 1 or 2; use loopwright '7.1', which wrote this checkpoint")


def test_if_no_checkpoint_is_good_all_problems_are_listed(run: Run) -> None:
    (run.newest / "state.json").write_bytes(b"")
    (run.good / "manifest.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        resolve(run.run_dir)
    assert str(caught.value) == (
        f"{run.run_dir / 'checkpoints'}: no checkpoint passes verification: "
        f"{run.newest}: state.json: 0 bytes; the manifest says {len(run.whole['state.json'])}; "
        f"{run.good}: manifest.json: missing"
    )
