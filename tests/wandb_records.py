"""Helpers that read the files of W&B in tests, without the reader in ``src``."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024


def records(path: Path) -> Iterator[Any]:
    """Yield the messages of a ``.wandb`` file, and check the checksum of each chunk."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""
    assert data[:4] in (b":W&B", b"")  # a killed service leaves an empty file
    while position < len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        chunk = data[position + 7 : position + 7 + length]
        assert checksum == zlib.crc32(bytes([kind]) + chunk)
        position += 7 + length
        parts += chunk
        if kind in (1, 4):  # a whole record, or the last part of one
            message = Record()
            message.ParseFromString(parts)
            parts = b""
            yield message


def files(run_dir: Path) -> list[Path]:
    """Return the ``.wandb`` files of a run, oldest first."""
    return sorted(run_dir.glob("wandb/*/*.wandb"))


def messages(run_dir: Path, kind: str) -> list[Any]:
    """Return the messages of a kind in all files of a run, such as ``history``."""
    found = (message for file in files(run_dir) for message in records(file))
    return [getattr(message, kind) for message in found if message.WhichOneof("record_type") == kind]


def points(run_dir: Path) -> list[tuple[str, int, float]]:
    """Return the name, step and value of each logged value, without W&B's own values."""
    found = []
    for row in messages(run_dir, "history"):
        values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        step = values.pop("global_step")
        found += [(name, step, value) for name, value in values.items() if not name.startswith("_")]
    return found


def config(run_dir: Path) -> dict[str, Any]:
    """Return the configuration that W&B has, without its own entries."""
    first = messages(run_dir, "run")[0]
    found = {update.key: json.loads(update.value_json) for update in first.config.update}
    return {key: value for key, value in found.items() if not key.startswith("_")}


def summary(run_dir: Path) -> dict[str, Any]:
    """Return the last value of each entry of the summary, without W&B's own entries."""
    found: dict[str, Any] = {}
    for message in messages(run_dir, "summary"):
        found |= {"/".join(each.nested_key) or each.key: json.loads(each.value_json) for each in message.update}
    return {key: value for key, value in found.items() if not key.startswith("_")}
