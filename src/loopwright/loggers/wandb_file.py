"""`WandbFile`, which reads the values that W&B has written to the file of a run on this machine.

W&B's service writes such a ``.wandb`` file, and is killed together with the process that trains. So only the values in
the file are stored. The file consists of a header of 7 bytes, and of blocks of 32 KiB in the log format of LevelDB
(https://github.com/google/leveldb/blob/main/doc/log_format.md). Each record is a message of ``wandb.proto``.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from loopwright.regular_files import open_regular

GLOBAL_STEP = "global_step"
_FILE_HEADER = 7  # bytes
_BLOCK = 32 * 1024  # bytes
_CHUNK = struct.Struct("<IHB")  # checksum, length, kind
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4  # kinds of chunks


class WandbFile:
    """The values in a ``.wandb`` file that another process may be writing.

    Attributes:
        last_steps: highest ``global_step`` of each value that was read, by name.
        has_ended: whether the end of the run was read.

    Args:
        path: path of the file. It may be missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_steps: dict[str, int] = {}
        self.has_ended = False
        self._num_read = _FILE_HEADER  # bytes, up to the end of the last complete record

    def read_further(self) -> None:
        """Read the records that were written since the last call.

        Raises:
            OSError: if the file cannot be read, or is not a regular file.
        """
        try:
            descriptor = open_regular(self.path)
        except FileNotFoundError:
            return
        with open(descriptor, "rb") as file:
            begin = self._num_read - self._num_read % _BLOCK  # chunks are aligned with blocks
            file.seek(begin)
            data = file.read(os.fstat(descriptor).st_size - begin)
        for record, end in _records(data, self._num_read - begin):
            self._note(record)
            self._num_read = begin + end

    def _note(self, record: bytes) -> None:
        from wandb.proto.wandb_internal_pb2 import Record

        message = Record()
        message.ParseFromString(record)
        kind = message.WhichOneof("record_type")
        self.has_ended |= kind == "exit"
        if kind != "history":
            return
        values = {"/".join(item.nested_key) or item.key: item.value_json for item in message.history.item}
        step = json.loads(values.pop(GLOBAL_STEP, "null"))
        if isinstance(step, int | float):
            own = [name for name in values if not name.startswith("_")]  # W&B's own values begin with _
            self.last_steps |= {name: max(int(step), self.last_steps.get(name, 0)) for name in own}


def _records(data: bytes, position: int) -> Iterator[tuple[bytes, int]]:
    """Yield each complete record, and the position after it. ``data`` begins with a block."""
    record = b""
    while position < len(data):
        left = _BLOCK - position % _BLOCK
        if left < _CHUNK.size:  # the end of a block that has no room for a chunk
            position += left
            continue
        if position + _CHUNK.size > len(data):
            return
        _, length, kind = _CHUNK.unpack_from(data, position)
        end = position + _CHUNK.size + length
        if kind not in (_WHOLE, _FIRST, _MIDDLE, _LAST) or end > len(data):
            return
        record = data[position + _CHUNK.size : end] if kind in (_WHOLE, _FIRST) else record + data[end - length : end]
        position = end
        if kind in (_WHOLE, _LAST):
            yield record, position
