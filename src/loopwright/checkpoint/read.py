"""`read_checkpoint`: reads and verifies a checkpoint that `write_checkpoint` wrote.

Each error message is one line. No data is unpickled, no file outside the folder is opened, and no size that a file
declares is trusted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

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
from loopwright.checkpoint.shards import Sharing, read_shards
from loopwright.errors import CheckpointError

_PARTS = {"model", "optimizer", "state", "outline"}
_SHAPES = "shapes"  # only in sharded checkpoints: the whole shapes of the sharded tensors, by part and name


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint read from disk. The tensors are on the CPU, and the caller may change them."""

    path: Path
    step: int
    state: dict[str, Any]
    manifest: Manifest


def read_checkpoint(path: Path, *, weights_only: bool = False, sharing: Sharing | None = None) -> Checkpoint:
    """Read and verify a checkpoint folder.

    If several processes have written their rows of each tensor, the rows are joined.

    Args:
        path: checkpoint folder.
        weights_only: whether to return only the entries ``model`` and ``buffers`` of the state. Files that these
            entries do not need are then neither read nor checked.
        sharing: how this process reads its rows of a sharded checkpoint. Its sharded tensors are then sharded in the
            result, too. None: the result has whole tensors.

    Raises:
        CheckpointError: with the message ``folder: file: problem``, if a file is missing, damaged, or was not written
            by `write_checkpoint`.
    """
    manifest = read_manifest(path)
    trees = _read_trees(path, manifest)
    read = partial(_decode, path, manifest, trees, sharing)
    state = {"model": read(MODEL)}
    if weights_only and trees["state"].get("buffers") == {}:
        return Checkpoint(path, manifest.step, {**state, "buffers": {}}, manifest)
    rest = read(STATE_TENSORS)
    if weights_only:
        rest = {key: value for key, value in rest.items() if key == "buffers"}
        return Checkpoint(path, manifest.step, {**rest, **state}, manifest)
    optimizer = read(OPTIMIZER)
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
    parts = _PARTS if manifest.shards is None else _PARTS | {_SHAPES}
    if not isinstance(trees, dict) or not parts - {"optimizer"} <= trees.keys() <= parts:
        raise fault(path, STATE, f"expected the keys {', '.join(sorted(parts))}")
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


def _decode(
    path: Path, manifest: Manifest, trees: Mapping[str, Any], sharing: Sharing | None, name: str
) -> dict[str, Any]:
    """Decode the JSON values of one part with the tensors in the file ``name``, and return the resulting dict."""
    key = name.removesuffix(".safetensors")
    tree = trees.get(key, {})
    if manifest.shards is None:
        tensors = _read_tensors(path, name, manifest)
    else:
        shapes = trees[_SHAPES].get(key, {}) if isinstance(trees[_SHAPES], dict) else None
        tensors = read_shards(path, name, manifest, shapes, sharing)
    try:
        part = decode(tree, tensors)
    except CheckpointError as error:
        raise fault(path, STATE, f"does not fit {name}: {error}") from error
    if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
        raise fault(path, STATE, f"expected a JSON object with the values for {name}")
    return part


def _read_tensors(path: Path, name: str, manifest: Manifest) -> dict[str, Tensor]:
    data = read_file(path, name, manifest.files[name])
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError, OverflowError, AssertionError) as error:
        raise fault(path, name, f"not a safetensors file ({error})") from error
    return tensors
