"""`read_shards`: reads tensors whose rows lie in several files, which several processes have written.

Each process of a sharded run reads only its own rows, from the files that contain them. A single process reads all
rows and joins them.

The headers of the files are not trusted. A file is refused if its tensors do not fill it exactly, or if a tensor does
not have the rows that its process must have written. So memory is allocated only for bytes that are in the files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loopwright.checkpoint.files import (
    MAX_STATE_COMMAS,
    STATE,
    FileRecord,
    Manifest,
    fault,
    open_verified,
    parse_json,
    shard_name,
    verify_file,
)
from loopwright.checkpoint.safetensors_layout import DTYPE_CODES, tensor_bytes
from loopwright.errors import CheckpointError
from loopwright.sharded_tensors import row_range

_DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items()}
_MAX_HEADER_BYTES = 64 << 20
_MAX_DIMENSIONS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How a process of a sharded run reads a checkpoint.

    Attributes:
        rank: index of this process.
        world_size: number of processes. It may differ from the number that wrote the checkpoint.
        join: function that returns a sharded tensor, given the rows of this process and the whole shape.
    """

    rank: int
    world_size: int
    join: Callable[[Tensor, Sequence[int]], Tensor]


def read_shards(
    folder: Path, name: str, manifest: Manifest, shapes: object, sharing: Sharing | None
) -> dict[str, Tensor]:
    """Return the tensors of one part of a sharded checkpoint by name.

    Args:
        folder: checkpoint folder.
        name: name that the file has in a checkpoint of one process, such as ``model.safetensors``.
        manifest: manifest of the checkpoint.
        shapes: whole shapes of the sharded tensors by name, from ``state.json``. They are not trusted.
        sharing: how this process reads its rows; None: all rows are read and joined.

    Raises:
        CheckpointError: if a file is missing or damaged, or does not contain the rows that it must contain.
    """
    num_shards = manifest.shards
    assert num_shards is not None, "only sharded checkpoints have such files"
    whole = _checked_shapes(folder, shapes)
    wanted = {key: _wanted(shape, sharing) for key, shape in whole.items()}
    needed = {0}  # it contains all tensors that are not sharded
    for key, shape in whole.items():
        size = max(1, -(-shape[0] // num_shards))
        needed.update(range(wanted[key].start // size, -(-wanted[key].stop // size)))
    with ExitStack() as stack:
        files: dict[int, _ShardFile] = {}
        for rank in range(num_shards):
            file = shard_name(name, rank, num_shards)
            if rank in needed:
                files[rank] = stack.enter_context(_ShardFile(folder, file, manifest.files[file]))
                _check_rows(folder, file, files[rank].entries, whole, rank, num_shards)
            elif sharing is None or rank % sharing.world_size == sharing.rank:
                verify_file(folder, file, manifest.files[file])
        tensors = {key: files[0].read(key) for key in files[0].entries if key not in whole}
        for key, shape in whole.items():
            rows = _join_rows(folder, key, shape, wanted[key], files, num_shards)
            tensors[key] = rows if sharing is None else sharing.join(rows, shape)
    return tensors


class _Entry(NamedTuple):
    """A tensor in a file: the offset of its first byte in the file, its dtype and its shape."""

    start: int
    dtype: torch.dtype
    shape: list[int]


class _ShardFile:
    """An open file of a sharded checkpoint whose hash and header were checked. Use it as a context."""

    def __init__(self, folder: Path, name: str, record: FileRecord) -> None:
        self._folder, self._name = folder, name
        self._descriptor = open_verified(folder, name, record)
        try:
            self.entries = self._read_header(record.num_bytes)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> _ShardFile:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def read(self, key: str) -> Tensor:
        """Return a whole tensor of this file."""
        entry = self.entries[key]
        tensor = _allocate(self._folder, self._name, entry.shape, entry.dtype)
        self.fill(tensor, key, 0)
        return tensor

    def fill(self, rows: Tensor, key: str, first_row: int) -> None:
        """Read rows of a tensor into ``rows``, from the row with index ``first_row`` in this file."""
        if not rows.numel():
            return
        entry = self.entries[key]
        start = entry.start + first_row * math.prod(entry.shape[1:]) * entry.dtype.itemsize
        buffer = tensor_bytes(rows)
        while buffer:
            num_read = os.preadv(self._descriptor, [buffer], start)
            if not num_read:
                raise fault(self._folder, self._name, "ended before its last byte")
            buffer, start = buffer[num_read:], start + num_read

    def _read_header(self, num_bytes: int) -> dict[str, _Entry]:
        folder, name = self._folder, self._name
        length = int.from_bytes(os.pread(self._descriptor, 8, 0), "little")
        if num_bytes < 8 or length > min(num_bytes - 8, _MAX_HEADER_BYTES):
            raise fault(folder, name, f"not a safetensors file (a header of {length} bytes)")
        data = os.pread(self._descriptor, length, 8)
        if data.count(b",") > MAX_STATE_COMMAS:
            raise fault(folder, name, f"more than {MAX_STATE_COMMAS:,} values in its header")
        header = parse_json(folder, name, data)
        if not isinstance(header, dict):
            raise fault(folder, name, "not a safetensors file (its header is not an object)")
        spans: list[tuple[int, int]] = []
        entries: dict[str, _Entry] = {}
        for key, given in header.items():
            try:
                start, stop, dtype, shape = _checked(given)
            except (TypeError, ValueError, LookupError, AttributeError) as error:
                raise fault(folder, name, f"not a safetensors file ({key!r:.80}: {error})") from error
            spans.append((start, stop))
            entries[key] = _Entry(8 + length + start, dtype, shape)
        end = 0
        for start, stop in sorted(spans):
            if start != end:
                raise fault(folder, name, "not a safetensors file (its tensors overlap, or leave a hole)")
            end = stop
        if end != num_bytes - 8 - length:
            raise fault(folder, name, "not a safetensors file (its tensors do not fill it)")
        return entries


def _checked(given: Any) -> tuple[int, int, torch.dtype, list[int]]:
    """Return the first and last offset, the dtype and the shape of an entry of a header."""
    if set(given) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("unknown fields")
    start, stop = given["data_offsets"]
    dtype, shape = _DTYPES[given["dtype"]], given["shape"]
    if not _is_shape(shape) or type(start) is not int or type(stop) is not int or start < 0:
        raise ValueError("expected whole numbers")
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError("its offsets do not fit its shape")
    return start, stop, dtype, shape


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) <= _MAX_DIMENSIONS
        and all(type(each) is int and 0 <= each < 1 << 63 for each in shape)
    )


def _checked_shapes(folder: Path, shapes: object) -> dict[str, list[int]]:
    if not isinstance(shapes, dict) or not all(_is_shape(shape) and shape for shape in shapes.values()):
        raise fault(folder, STATE, "shapes: expected a list of whole numbers for each sharded tensor")
    return shapes


def _wanted(shape: Sequence[int], sharing: Sharing | None) -> range:
    return range(shape[0]) if sharing is None else row_range(shape[0], sharing.rank, sharing.world_size)


def _check_rows(
    folder: Path, file: str, entries: Mapping[str, _Entry], whole: Mapping[str, list[int]], rank: int, num_shards: int
) -> None:
    """Refuse a file that does not contain exactly the rows that its process must have written."""
    for key, shape in whole.items():
        if key not in entries:
            raise fault(folder, file, f"lacks the rows of {key!r:.80}")
        expected = [len(row_range(shape[0], rank, num_shards)), *shape[1:]]
        if entries[key].shape != expected:
            problem = f"{key!r:.80} has the shape {entries[key].shape!r:.80}"
            raise fault(folder, file, f"{problem}; expected {expected!r:.80}, the rows of shard {rank + 1}")
    if rank:
        unknown = sorted(entries.keys() - whole.keys())
        if unknown:
            raise fault(folder, file, f"contains {unknown[0]!r:.80}, which is not a sharded tensor of this checkpoint")


def _join_rows(
    folder: Path, key: str, shape: Sequence[int], wanted: range, files: Mapping[int, _ShardFile], num_shards: int
) -> Tensor:
    """Return the wanted rows of a tensor from the files that contain them."""
    dtype = files[0].entries[key].dtype
    rows = _allocate(folder, STATE, [len(wanted), *shape[1:]], dtype)
    for rank, file in files.items():
        here = row_range(shape[0], rank, num_shards)
        start, stop = max(wanted.start, here.start), min(wanted.stop, here.stop)
        if file.entries[key].dtype != dtype:
            name = f"{file.entries[key].dtype} and {dtype}"
            raise fault(folder, STATE, f"the shards of {key!r:.80} have different dtypes ({name})")
        if start < stop:
            file.fill(rows[start - wanted.start : stop - wanted.start], key, start - here.start)
    return rows


def _allocate(folder: Path, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    try:
        return torch.empty(list(shape), dtype=dtype)
    except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise fault(folder, name, f"no tensor can have the shape {list(shape)!r:.80}") from error
