"""Checkpoints that several processes have written: each reads its own rows, and a changed file is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loopwright import TrainingLoop
from loopwright.checkpoint import Sharing, read_checkpoint
from loopwright.device import Device
from loopwright.errors import CheckpointError
from loopwright.sharded_tensors import row_range
from ranked import on_ranks
from sealing import leaves, read_trees, without, write_manifest, write_trees
from tiny import adamw, batches, is_bitwise_equal, trainer

NUM_SHARDS = 3


def save(rank: int, folder: Path) -> dict[str, Tensor]:
    ours = trainer(TrainingLoop(num_steps=2), optimizer=adamw, device=Device(kind="cpu", strategy="fsdp"))
    ours.fit(batches(5))
    ours.save_checkpoint(folder)
    return {name: each.detach().full_tensor() for name, each in ours.parameters.items()}  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A checkpoint of three processes, and its weights."""
    folder = tmp_path_factory.mktemp("made") / "step_00000002"
    return folder, on_ranks(NUM_SHARDS, save, folder)[0]


@given(st.integers(0, 60), st.integers(1, 12))
def test_rows_are_those_of_torch_chunk(num_rows: int, world_size: int) -> None:
    rows = [row_range(num_rows, rank, world_size) for rank in range(world_size)]
    assert [row for each in rows for row in each] == list(range(num_rows))
    chunks = [len(each) for each in torch.arange(num_rows).chunk(world_size)] if num_rows else []
    assert [len(each) for each in rows if each] == chunks


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5])
def test_each_of_any_number_of_processes_reads_its_rows(made: tuple[Path, dict[str, Tensor]], world_size: int) -> None:
    folder, weights = made
    assert is_bitwise_equal(read_checkpoint(folder).state["model"], weights)
    for rank in range(world_size):
        joined: list[tuple[Tensor, Sequence[int]]] = []

        def join(rows: Tensor, shape: Sequence[int]) -> Tensor:
            joined.append((rows, shape))  # noqa: B023
            return rows

        sharing = Sharing(rank=rank, world_size=world_size, join=join)
        state = read_checkpoint(folder, sharing=sharing).state
        for name, whole in weights.items():
            rows = row_range(len(whole), rank, world_size)
            assert torch.equal(state["model"][name], whole[rows.start : rows.stop])
        assert len(joined) == 3 * len(weights)  # weights and two averages of AdamW
        assert all(len(rows) == len(row_range(shape[0], rank, world_size)) for rows, shape in joined)


def is_refused(folder: Path) -> bool:
    """Return whether reading reports a fault in one line. Another error is raised."""
    try:
        read_checkpoint(folder)
    except CheckpointError as error:
        return str(error).isprintable()
    return False


def test_a_changed_bit_in_any_file_is_found(made: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    copy = tmp_path / "step_00000002"
    shutil.copytree(made[0], copy)
    files = sorted(copy.iterdir())
    assert len(files) == 3 * NUM_SHARDS + 2
    for file in files:
        data = file.read_bytes()
        for changed in (data[:-1], data + b"\0", *(flipped(data, at) for at in (0, len(data) // 2, len(data) - 1))):
            file.write_bytes(changed)
            assert is_refused(copy), file.name
        file.unlink()
        assert is_refused(copy), file.name
        file.write_bytes(data)
    assert not is_refused(copy)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(tree))
    node = copy
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return copy


def test_every_other_value_in_a_manifest_is_refused(made: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    copy = tmp_path / "step_00000002"
    shutil.copytree(made[0], copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    paths = [path for path in leaves(manifest) if path[0] not in ("torch", "loopwright", "sha256")]
    assert len(paths) == 4 + 2 * (3 * NUM_SHARDS + 1)
    for path in paths:
        values = [None, [], {}, True, "x", -1, 0, 1, 4, 1.0, 10**30, "0" * 64]
        old = manifest
        for key in path:
            old = old[key]
        changes = [replaced(manifest, path, value) for value in values if value != old or type(value) is not type(old)]
        for changed in (*changes, without(manifest, path)):
            write_manifest(copy, changed)
            assert is_refused(copy), (path, changed)
    for name in manifest["files"]:
        write_manifest(copy, without(manifest, ("files", name)))
        assert is_refused(copy), name
    write_manifest(copy, manifest)
    assert not is_refused(copy)


def test_every_other_shape_is_refused(made: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    copy = tmp_path / "step_00000002"
    shutil.copytree(made[0], copy)
    trees = read_trees(copy)
    paths = [("shapes", part, name) for part, shapes in trees["shapes"].items() for name in shapes]
    assert len(paths) == 12
    for path in paths:
        shape = trees["shapes"][path[1]][path[2]]
        others: list[Any] = [None, "x", [], [shape[0] + 9, *shape[1:]], [shape[0], *shape[1:], 1], [2**62, 2**62]]
        others += [[float(each) for each in shape], [-each for each in shape], [True, *shape[1:]]]
        for other in others:
            write_trees(copy, replaced(trees, path, other))
            assert is_refused(copy), (path, other)
        write_trees(copy, without(trees, path))
        assert is_refused(copy), path
    write_trees(copy, trees)
    assert not is_refused(copy)
