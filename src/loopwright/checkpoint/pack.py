"""`pack` and `pack_shard`: build the contents of the files of a checkpoint from a state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from loopwright.checkpoint.encode import Encoded, encode_all, in_place
from loopwright.checkpoint.files import (
    MAX_STATE_BYTES,
    MAX_STATE_COMMAS,
    MODEL,
    OPTIMIZER,
    STATE,
    STATE_TENSORS,
    shard_name,
)
from loopwright.checkpoint.host_copies import HostCopies
from loopwright.checkpoint.outline import outline
from loopwright.checkpoint.safetensors_layout import safetensors_chunks
from loopwright.errors import SettingError, SettingTypeError

# Content of each file of a checkpoint except the manifest, by file name, as a list of chunks of bytes.
Contents = Mapping[str, Sequence[memoryview]]


def pack(state: Mapping[str, object], copies: HostCopies | None = None) -> Contents:
    """Return the contents of the files that store a state.

    Args:
        state: mapping with ``"model"`` (tensors by name, without the prefixes that wrappers such as DDP add),
            optionally ``"optimizer"``, and any further entries that `encode` accepts.
        copies: object that copies the tensors to host memory; None: the contents share memory with the state's CPU
            tensors.

    Raises:
        SettingError: if the state contains a value that cannot be stored, such as a sharded tensor.
    """
    parts = _encode_parts(state, copies, takes_shards=False)
    tensors: dict[str, Mapping[str, Tensor]] = {OPTIMIZER: {}}
    tensors |= {name: part.tensors for name, part in parts.items()}
    text = _text({_key(name): part.tree for name, part in parts.items()})
    if copies is not None:
        copies.end()
    return {name: safetensors_chunks(part) for name, part in tensors.items()} | {STATE: [memoryview(text)]}


def pack_shard(
    state: Mapping[str, object], rank: int, world_size: int, copies: HostCopies | None = None
) -> tuple[Contents, str]:
    """Return the contents of the files that store the rows of one process, and a digest.

    The files of process 0 also contain all tensors that are not sharded, and the values that are not tensors.

    Args:
        state: as for `pack`. Its sharded tensors have the same paths in every process.
        rank: index of the process.
        world_size: number of processes.
        copies: as for `pack`.

    Returns:
        The contents, and the SHA-256 of the names and shapes of all sharded tensors, which must be equal in every
        process.

    Raises:
        SettingError: if the state contains a value that cannot be stored.
    """
    parts = _encode_parts(state, copies, takes_shards=True)
    shapes = {_key(name): part.shapes for name, part in parts.items()}
    contents: dict[str, Sequence[memoryview]] = {}
    for name in (MODEL, OPTIMIZER, STATE_TENSORS):
        part = parts.get(name) or Encoded(None, {}, {})
        own = part.tensors if rank == 0 else {each: part.tensors[each] for each in part.shapes}
        contents[shard_name(name, rank, world_size)] = safetensors_chunks(own)
    if rank == 0:
        trees = {_key(name): part.tree for name, part in parts.items()}
        contents[STATE] = [memoryview(_text({**trees, "shapes": shapes}))]
    if copies is not None:
        copies.end()
    return contents, hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()


def _encode_parts(state: Mapping[str, object], copies: HostCopies | None, *, takes_shards: bool) -> dict[str, Encoded]:
    """Encode the three parts of a state. The keys are the names of the tensor files of a checkpoint of one process."""
    parts: dict[str, object] = {MODEL: _by_name("model", state.get("model"))}
    if "optimizer" in state:
        parts[OPTIMIZER] = _by_name("optimizer", state["optimizer"])
    rest = {key: value for key, value in state.items() if key not in ("model", "optimizer")}
    parts[STATE_TENSORS] = _by_name("state", rest)
    encoded: dict[str, Encoded] = {}
    for name, part in parts.items():
        on_host = in_place if copies is None else partial(copies.take, name)
        where = "" if name == STATE_TENSORS else _key(name)
        encoded[name] = encode_all(part, where, on_host, takes_shards=takes_shards)
    return encoded


def _text(trees: dict[str, Any]) -> bytes:
    """Return the content of ``state.json``."""
    text = json.dumps({**trees, "outline": outline(trees)}, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > MAX_STATE_BYTES:
        raise SettingError("state", f": {len(text)} bytes without the tensors; expected at most {MAX_STATE_BYTES}.")
    if text.count(b",") > MAX_STATE_COMMAS:
        problem = f": {text.count(b','):,} values without the tensors; expected at most {MAX_STATE_COMMAS:,}"
        raise SettingError("state", f"{problem}; store long lists of numbers as tensors.")
    return text


def _key(name: str) -> str:
    return name.removesuffix(".safetensors")


def _by_name(part: str, values: object) -> dict[str, object]:
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise SettingTypeError(part, f": expected a mapping with names as keys, not {type(values).__name__}.")
    return dict(values)
