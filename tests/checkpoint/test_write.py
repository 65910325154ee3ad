"""Saving: saved states are read back, unsupported ones are refused, and leftovers are removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loopwright.checkpoint import (
    clean_leftovers,
    read_checkpoint,
    remove_checkpoint,
    step_folder,
    weights_digest,
    write_checkpoint,
)
from loopwright.checkpoint.safetensors_layout import DTYPE_CODES
from loopwright.errors import SaveError, SettingError

Saver = Callable[[int], Path]
StateMaker = Callable[[int], dict[str, Any]]


def test_a_saved_checkpoint_is_read_back_completely(save: Saver, make_state: StateMaker, tmp_path: Path) -> None:
    path = save(100)
    assert path == tmp_path / "checkpoints" / "step_00000100"
    assert sorted(file.name for file in path.iterdir()) == [
        "manifest.json", "model.safetensors", "optimizer.safetensors", "state.json", "state.safetensors",
    ]  # fmt: skip
    assert [child.name for child in path.parent.iterdir()] == [path.name]
    checkpoint, state = read_checkpoint(path), make_state(100)
    assert (checkpoint.path, checkpoint.step, checkpoint.manifest.world_size) == (path, 100, 1)
    assert checkpoint.manifest.torch == torch.__version__
    assert weights_digest(checkpoint.state["model"]) == weights_digest(state["model"])
    assert list(checkpoint.state["model"]) == list(state["model"])
    assert checkpoint.state["model"]["tied"] is checkpoint.state["model"]["weight"]
    assert torch.equal(checkpoint.state["optimizer"]["state"][0]["exp_avg"], state["optimizer"]["state"][0]["exp_avg"])
    assert checkpoint.state["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    assert checkpoint.state["random"]["python"] == state["random"]["python"]
    assert checkpoint.state.keys() == state.keys()


@pytest.mark.parametrize("part", ["model", "optimizer", "callbacks"])
def test_every_dtype_is_read_back_from_its_file(tmp_path: Path, part: str) -> None:
    numbers = torch.arange(6).reshape(2, 3)
    tensors = {str(dtype): numbers.to(dtype) for dtype in (*DTYPE_CODES, torch.complex128)}
    turned = {f"{name} turned": tensor.mT for name, tensor in tensors.items()}
    odd = {
        "scalar": torch.tensor(1.5, dtype=torch.bfloat16),
        "empty": torch.empty(0, 4, dtype=torch.float16),
        "conjugate": torch.tensor([1 + 2j, 3 - 4j]).conj(),
        "negated": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    given = tensors | turned | odd
    read = read_checkpoint(write_checkpoint(tmp_path / "a", {"model": {}, part: given}, step=1)).state[part]
    assert list(read) == list(given)
    assert weights_digest(read) == weights_digest(given)


def test_the_same_state_gives_the_same_bytes(tmp_path: Path, make_state: StateMaker) -> None:
    first, second = (write_checkpoint(tmp_path / name, make_state(3), step=3) for name in ("a", "b"))
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_a_checkpoint_may_hold_only_a_model(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "only", {"model": {}}, step=0)
    assert read_checkpoint(path).state == {"model": {}}


def test_changing_a_saved_or_read_state_does_not_change_the_checkpoint(tmp_path: Path, make_state: StateMaker) -> None:
    state = make_state(1)
    path = write_checkpoint(tmp_path / "a", state, step=1)
    read_checkpoint(path).state["model"]["weight"].zero_()
    state["model"]["weight"].zero_()
    assert weights_digest(read_checkpoint(path).state["model"]) == weights_digest(make_state(1)["model"])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "model: expected a mapping"),
        ({"model": {1: torch.ones(1)}}, "model: expected a mapping"),
        ({"model": {}, "optimizer": []}, "optimizer: expected a mapping"),
        ({"model": {}, 1: []}, "state: expected a mapping"),
        ({"model": {"weight": object()}}, "model.weight: expected a tensor"),
        ({"model": {}, "optimizer": {"a": [{1}]}}, r"optimizer\.a\[0\]: expected a tensor"),
        ({"model": {}, "callbacks": {"EMA": {1, 2}}}, r"callbacks\.EMA: expected a tensor"),
    ],
)
def test_unsupported_states_are_refused_before_anything_is_written(
    tmp_path: Path, state: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=f"^{message}"):
        write_checkpoint(step_folder(tmp_path, 1), state, step=1)
    assert not list(tmp_path.iterdir())


def test_a_parent_that_is_a_file_is_reported_in_one_line(tmp_path: Path, make_state: StateMaker) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"not saved: Not a directory$"):
        write_checkpoint(tmp_path / "file" / "step_00000001", make_state(1), step=1)


def test_leftovers_are_removed_and_links_are_not_followed(save: Saver, tmp_path: Path) -> None:
    root = save(1).parent
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (root / ".tmp-0-step_00000002").mkdir()
    (root / ".tmp-0-step_00000002" / "model.safetensors").write_bytes(b"half")
    (root / ".tmp-link").symlink_to(tmp_path / "precious")
    (root / ".tmp-file").touch()
    (root / ".tmp-").mkdir()
    assert len(clean_leftovers(root)) == 4
    assert [path.name for path in root.iterdir()] == ["step_00000001"]
    assert (tmp_path / "precious" / "file").exists()
    assert clean_leftovers(root) == []
    assert clean_leftovers(tmp_path / "absent") == []


def test_a_damaged_leftover_does_not_become_a_checkpoint(save: Saver) -> None:
    path = save(1)
    hidden = path.rename(path.parent / f".tmp-0-{path.name}")
    (hidden / "state.json").write_bytes(b"{}")
    clean_leftovers(path.parent)
    assert not list(path.parent.iterdir())


def test_a_checkpoint_can_be_removed_twice(save: Saver) -> None:
    path = save(1)
    remove_checkpoint(path)
    remove_checkpoint(path)
    assert not path.exists()
