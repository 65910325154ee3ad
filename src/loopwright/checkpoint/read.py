"""`read_checkpoint`: reads and verifies a checkpoint that `write_checkpoint` wrote.

Each error message is one line. No data is unpickled, no file outside the folder is opened, and no size that a file
declares is trusted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from loopwright.checkpoint.encode import MAX_DEPTH, decode
from loopwright.checkpoint.files import (
    MAX_STATE_BYTES,
    MAX_STATE_COMMAS,
    MODEL,
    OPTIMIZER,
    STATE,
    STATE_TENSORS,
    Manifest,
    fault,
    parse_json,
    read_file,
    read_manifest,
    verify_file,
)
from loopwright.checkpoint.outline import outline, outline_fault
from loopwright.errors import CheckpointError

_PARTS = {"model", "optimizer", "state", "outline"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint read from disk. The tensors are on the CPU, and the caller may change them."""

    path: Path
    step: int
    state: dict[str, Any]
    manifest: Manifest


def read_checkpoint(path: Path, *, weights_only: bool = False) -> Checkpoint:
    """Read and verify a checkpoint folder.

    Args:
        path: checkpoint folder.
        weights_only: whether to return only the entries ``model`` and ``buffers`` of the state. Files that these
            entries do not need are then neither read nor checked.

    Raises:
        CheckpointError: with the message ``folder: file: problem``, if a file is missing, damaged, or was not written
            by `write_checkpoint`.
    """
    manifest = read_manifest(path)
    trees = _read_trees(path, manifest)
    state = {"model": _decode(path, MODEL, trees["model"], manifest)}
    if weights_only and trees["state"].get("buffers") == {}:
        return Checkpoint(path, manifest.step, {**state, "buffers": {}}, manifest)
    rest = _decode(path, STATE_TENSORS, trees["state"], manifest)
    if weights_only:
        rest = {key: value for key, value in rest.items() if key == "buffers"}
        return Checkpoint(path, manifest.step, {**rest, **state}, manifest)
    optimizer = _decode(path, OPTIMIZER, trees.get("optimizer", {}), manifest)
    if "optimizer" in trees:
        state["optimizer"] = optimizer
    return Checkpoint(path, manifest.step, {**rest, **state}, manifest)


def read_entries(path: Path, names: Collection[str]) -> Checkpoint:
    """Read the named entries of a checkpoint's state without opening a tensor file; absent entries are left out.

    Raises:
        CheckpointError: as for `read_checkpoint`, but only for the manifest and ``state.json``; also if an entry
            contains tensors.
    """
    manifest = read_manifest(path)
    tree = _read_trees(path, manifest)["state"]
    try:
        state = {name: decode(tree[name], {}) for name in names if name in tree}
    except CheckpointError as error:
        raise fault(path, STATE, str(error)) from error
    return Checkpoint(path, manifest.step, state, manifest)


def verify_checkpoint(path: Path) -> Manifest:
    """Check that every file exists and matches the manifest, without loading tensors.

    Raises:
        CheckpointError: as for `read_checkpoint`.
    """
    manifest = read_manifest(path)
    for name, record in manifest.files.items():
        verify_file(path, name, record, MAX_STATE_BYTES if name == STATE else None)
    return manifest


def _read_trees(path: Path, manifest: Manifest) -> dict[str, Any]:
    """Read ``state.json`` and check its outline. Return ``model``, ``state`` and, if present, ``optimizer``."""
    data = read_file(path, STATE, manifest.files[STATE], max_bytes=MAX_STATE_BYTES)
    if data.count(b",") > MAX_STATE_COMMAS:
        raise fault(path, STATE, f"more than {MAX_STATE_COMMAS:,} values")
    trees = parse_json(path, STATE, data)
    if not isinstance(trees, dict) or not _PARTS - {"optimizer"} <= trees.keys() <= _PARTS:
        raise fault(path, STATE, f"expected the keys {', '.join(sorted(_PARTS))}")
    expected = trees.pop("outline")
    try:
        problem = outline_fault(outline(trees), expected)
    except RecursionError:
        problem = f"more than {MAX_DEPTH} levels of nested lists and objects"
    if problem is not None:
        raise fault(path, STATE, problem.removeprefix("."))
    if not isinstance(trees["state"], dict):
        raise fault(path, STATE, f"expected a JSON object with the values for {STATE_TENSORS}")
    return trees


def _decode(path: Path, name: str, tree: object, manifest: Manifest) -> dict[str, Any]:
    """Decode the JSON values ``tree`` with the tensors in the file ``name``, and return the resulting dict."""
    data = read_file(path, name, manifest.files[name])
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError, OverflowError, AssertionError) as error:
        raise fault(path, name, f"not a safetensors file ({error})") from error
    try:
        part = decode(tree, tensors)
    except CheckpointError as error:
        raise fault(path, STATE, f"does not fit {name}: {error}") from error
    if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
        raise fault(path, STATE, f"expected a JSON object with the values for {name}")
    return part
