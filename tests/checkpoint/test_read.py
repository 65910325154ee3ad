"""Reading a checkpoint: damaged and foreign content is reported in one line, and no code runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from loopwright.checkpoint import clean_leftovers, read_checkpoint, resolve, verify_checkpoint
from loopwright.errors import CheckpointError
from sealing import read_trees, seal, write_manifest, write_trees

Saver = Callable[[int], Path]

FILES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json", "state.safetensors"]


def assert_refused(path: Path, file: str, reason: str = "") -> None:
    """Both functions that check a checkpoint refuse it, in one line with folder and file."""
    for read in (read_checkpoint, verify_checkpoint):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: {file}: {reason}")
        assert "\n" not in str(caught.value)


def test_a_path_that_is_no_checkpoint_folder_is_refused_in_one_line(tmp_path: Path, save: Saver) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", "manifest.json", "missing")
    (tmp_path / "file.pt").write_bytes(b"")
    (tmp_path / "link").symlink_to(save(1))
    for name, reason in (
        ("absent", "No such file"),
        ("file.pt", "not a folder"),
        ("link", "a link"),
        ("a\0b", "null (byte|character)"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"schema": "1"}, {"step": -1}, {"step": 1.0}, {"step": True}, {"step": "1"}, {"step": None},
        {"world_size": 0}, {"world_size": 2**0.5}, {"files": {}}, {"files": []}, {"files": None}, {"extra": 1},
        {"torch": 5}, {"loopwright": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_manifest_is_refused(save: Saver, change: dict[str, Any]) -> None:
    path = save(1)
    write_manifest(path, {**json.loads((path / "manifest.json").read_text()), **change})
    assert_refused(path, "manifest.json")


def test_a_manifest_of_another_schema_names_the_version_to_use(save: Saver) -> None:
    path = save(1)
    write_manifest(path, {**json.loads((path / "manifest.json").read_text()), "schema": 3})
    reason = "schema=3: expected 1 or 2; use loopwright '0.1.0', which wrote this checkpoint"
    assert_refused(path, "manifest.json", reason)


def test_a_folder_named_after_another_step_is_refused(save: Saver) -> None:
    path = save(1)
    moved = path.rename(path.parent / "step_00000007")
    assert_refused(moved, "manifest.json", "belongs to step 1, but the folder is named after another step")
    assert read_checkpoint(moved.rename(path.parent / "kept")).step == 1


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../secret", "state.pkl", "", ".", "MODEL"])
def test_a_manifest_that_lists_other_files_is_refused(save: Saver, name: str) -> None:
    path = save(1)
    manifest = json.loads((path / "manifest.json").read_text())
    for files in (
        {**manifest["files"], name: manifest["files"]["state.json"]},
        {name if key == "state.json" else key: record for key, record in manifest["files"].items()},
    ):
        write_manifest(path, {**manifest, "files": files})
        assert_refused(path, "manifest.json", "lists other files")


@pytest.mark.parametrize("num_bytes", [2**60, 2**70, -1, 1.5, True, "12", None])
def test_a_wrong_declared_size_is_refused(save: Saver, num_bytes: object) -> None:
    path = save(1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["model.safetensors"]["num_bytes"] = num_bytes
    write_manifest(path, manifest)
    with pytest.raises(CheckpointError, match=r"bytes; the manifest says|not a manifest"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
def test_links_pipes_and_folders_are_not_opened(save: Saver, name: str, tmp_path: Path) -> None:
    path = save(1)
    target = (path / name).rename(tmp_path / "target")
    (path / name).symlink_to(target)
    assert_refused(path, name, "not a regular file")
    (path / name).unlink()
    os.mkfifo(path / name)
    assert_refused(path, name, "not a regular file")
    (path / name).unlink()
    (path / name).mkdir()
    assert_refused(path, name, "not a regular file")


def header(fields: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(fields).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 8, header({}, length=2**60), header({}, length=2**64 - 1), header([]),
        header({"weight": entry([2**60], 0, 2**62)}), header({"weight": entry([2**62, 2**62], 0, 0)}),
        header({"weight": entry([2], 0, 8)}, b"1234"), header({"weight": entry([1], 0, 4)}, b"12345678"),
        header({"weight": entry([2], 0, 8), "count": entry([2], 4, 12)}, b"0" * 12),
        header({"weight": entry([1], 4, 8)}, b"0" * 8), header({"weight": entry([-1], 0, 4)}, b"0" * 4),
        header({"weight": entry([1], 0, 4, "PICKLE")}, b"0" * 4), header({"weight": entry([1], 0, 1, "F8_E8M0")}, b"0"),
        header({"weight": entry([2], 0, 4)}, b"0" * 4), header({"weight": entry([1], 4, 0)}, b"0" * 4),
        header({"other": entry([1], 0, 4)}, b"0" * 4), header({}),
    ],
)  # fmt: skip
def test_malformed_tensor_files_are_refused(save: Saver, data: bytes) -> None:
    path = save(1)
    (path / "model.safetensors").write_bytes(data)
    seal(path)
    for read in (read_checkpoint, partial(read_checkpoint, weights_only=True)):
        with pytest.raises(CheckpointError, match=f"^{path}: (model.safetensors|state.json): ") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", "NaN", "{'model': {}}", '{"model": {}, "state": 1', "[" * 100_000, '{"model":' * 50_000,
        '{"model": {"a": NaN}, "state": {}, "outline": {}}', '{"model": {}, "model": {}, "state": {}, "outline": {}}',
        '{"model": {"weight": 1, "weight": 2}, "state": {}, "outline": {}}', '{"model": ' + "9" * 5000,
        '{"model": {}, "state": {}}', '{"model": {}, "state": {}, "outline": []}', '{"model": {"\\u001b": "\\ud800"}',
        '{"model": {}, "state": {}, "outline": {"model": {}, "state": 1}}',
    ],
    ids=range(17),
)  # fmt: skip
def test_text_that_is_not_a_state_is_refused(save: Saver, text: str) -> None:
    path = save(1)
    (path / "state.json").write_text(text)
    seal(path)
    with pytest.raises(CheckpointError, match=f"^{path}: state.json: ") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "trees",
    [
        {"model": {}, "state": {}, "more": {}}, {"model": {}}, {"model": [], "state": {}}, {"model": {}, "state": []},
        {"model": {"weight": {"~pickle": "x"}}, "state": {}}, {"model": {"~dict": [[1, 2]]}, "state": {}},
        {"model": {"weight": {"~tensor": "../x"}}, "state": {}}, {"model": "weight", "state": {}},
        {"model": {"weight": {"~permuted": [{"~tensor": "weight"}, [0, 0]]}}, "state": {}},
        {"model": {"weight": {"~complex": "weight"}}, "state": {}}, {"model": None, "state": None},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_state_is_refused(save: Saver, trees: dict[str, Any]) -> None:
    path = save(1)
    write_trees(path, trees)
    with pytest.raises(CheckpointError, match=f"^{path}: state.json: ") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num", [110, 200, 900, 5000])
def test_a_deep_structure_is_refused(save: Saver, num: int) -> None:
    path = save(1)
    deep, deep_outline = "[" * num + "]" * num, "[" * (num - 1) + "0" + "]" * (num - 1)
    (path / "state.json").write_text(
        f'{{"model": {deep}, "state": {{}}, "outline": {{"model": {deep_outline}, "state": {{}}}}}}'
    )
    seal(path)
    with pytest.raises(CheckpointError, match=r"state\.json: .*(100 levels|recursion)"):
        read_checkpoint(path)


def test_a_number_that_overflows_to_infinity_is_refused(save: Saver) -> None:
    path = save(1)
    (path / "state.json").write_text(
        (path / "state.json").read_text().replace('"global_step":1', '"global_step":1e999')
    )
    seal(path)
    with pytest.raises(
        CheckpointError, match=r"state\.json: does not fit state\.safetensors: a number that is not finite: inf$"
    ):
        read_checkpoint(path)


def test_a_repeated_key_is_refused(save: Saver) -> None:
    path = save(1)
    text = (path / "state.json").read_text()
    (path / "state.json").write_text(text.replace('"state":{', '"state":{"extra":1,"extra":2,', 1))
    seal(path)
    with pytest.raises(CheckpointError, match=r"state\.json: not strict JSON \(a key is repeated\)$"):
        read_checkpoint(path)


def test_an_unused_tensor_is_refused(save: Saver) -> None:
    path = save(1)
    trees = read_trees(path)
    del trees["optimizer"]
    write_trees(path, trees)
    with pytest.raises(CheckpointError, match="is in the tensor file, but the JSON state does not use it"):
        read_checkpoint(path)


def test_additional_files_in_a_checkpoint_are_never_opened(save: Saver) -> None:
    path = save(1)
    (path / "data.pkl").write_bytes(pickle.dumps("never opened"))
    (path / "latest").symlink_to("/etc/passwd")
    opened: list[str] = []
    is_watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if is_watching and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    assert read_checkpoint(path).step == 1
    assert read_checkpoint(path, weights_only=True).state["model"]
    is_watching = False
    assert {Path(name) for name in opened if not name.isdigit()} == {path / name for name in FILES}


def test_reading_weights_reads_no_other_tensors(save: Saver) -> None:
    path = save(1)
    (path / "optimizer.safetensors").write_bytes(b"damaged")
    assert list(read_checkpoint(path, weights_only=True).state["model"]) == ["weight", "tied", "count"]
    (path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_checkpoint(path, weights_only=True).state["model"]


def test_a_moved_checkpoint_can_be_read(save: Saver, tmp_path: Path) -> None:
    path = save(1)
    shutil.move(path.parent, tmp_path / "elsewhere")
    clean_leftovers(tmp_path / "elsewhere")
    assert read_checkpoint(resolve(tmp_path / "elsewhere")).step == 1
