"""`check_archive` checks a file of ``torch.save`` before torch reads it.

`zipfile` and torch interpret damaged zip files differently. The check accepts only the layout that ``torch.save``
writes, because both interpret it in the same way. The pickle in the file is not loaded. Only its opcodes are read.
"""

from __future__ import annotations

import os
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from loopwright.errors import CheckpointError, did_you_mean
from loopwright.regular_files import is_sparse

_END = struct.Struct("<4s4H2LH")  # end of central directory
_LOCATOR = struct.Struct("<4sLQL")  # position of the zip64 end of central directory
_END_64 = struct.Struct("<4sQ2H2L4Q")

_LEAST_SPARSE_BYTES = 1 << 30
_MAX_PICKLE_BYTES = 64 << 20  # the pickle contains names and shapes; the tensors are in other entries
# Largest number of items in nested values. A short pickle can build n tuples, each of which contains the previous tuple
# twice. The last tuple then has 2^n nested items, and computing its hash takes as many operations.
_MAX_ITEMS = 5_000_000
_BYTEARRAYS = ("builtins bytearray", "__builtin__ bytearray")


def check_archive(path: Path) -> None:
    """Refuse a file that ``torch.save`` cannot have written, or that would need much more memory than its size.

    Raises:
        CheckpointError: in these cases:

            - The file does not exist, is a folder, or is not a valid zip file.
            - Its zip directory has another layout than ``torch.save`` writes.
            - Entries are compressed, overlap, or have the same name.
            - The file has at least 1 GiB, and consists almost entirely of holes.
            - A pickle is damaged, has more than 64 MiB, has nested values of more than 5,000,000 items, or builds a
              ``bytearray``.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder; expected a file that torch.save wrote.")
    if not path.is_file():
        near = did_you_mean(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
        raise CheckpointError(f"{path}: no such file; expected a file that torch.save wrote.{near}")
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            status = os.fstat(file.fileno())
            if is_sparse(file.fileno(), status, _LEAST_SPARSE_BYTES):
                raise CheckpointError(f"{path}: almost none of its {status.st_size:,} bytes are on the disk.")
            entries = archive.infolist()
            if not _ends_plainly(file, status.st_size, len(entries)) or not all(map(_is_plain, entries)):
                raise CheckpointError(f"{path}: its zip directory has a form that torch.save does not write.")
            is_compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if is_compressed or sum(entry.file_size for entry in entries) > status.st_size:
                raise CheckpointError(
                    f"{path}: has compressed or overlapping entries, which torch.save does not write."
                )
            if len({entry.filename.casefold() for entry in entries}) < len(entries):
                raise CheckpointError(f"{path}: has two entries of the same name.")
            pickles = [entry for entry in entries if entry.filename.casefold().endswith("data.pkl")]
            if any(entry.file_size > _MAX_PICKLE_BYTES for entry in pickles):
                raise CheckpointError(f"{path}: expected a data.pkl of at most {_MAX_PICKLE_BYTES:,} bytes.")
            problems = [_pickle_problem(archive.read(entry)) for entry in pickles]
    except CheckpointError:
        raise
    # zipfile and struct raise all of these for a damaged zip file.
    except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError, ValueError, struct.error):
        raise CheckpointError(f"{path}: expected a file that torch.save wrote in its zip format.") from None
    for problem in problems:
        if problem is not None:
            raise CheckpointError(f"{path}: {problem}; expected a state_dict.")


def _ends_plainly(file: BinaryIO, size: int, num_entries: int) -> bool:
    """Return whether the file ends with the zip directory and its end records, without a gap between them."""
    start = max(0, size - _END.size - _LOCATOR.size - _END_64.size)
    file.seek(start)
    tail = file.read()
    signature, _, _, _, num_listed, num_bytes, offset, len_comment = _END.unpack(tail[-_END.size :])
    if signature != b"PK\x05\x06" or len_comment:
        return False
    stop = size - _END.size
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if locator.startswith(b"PK\x06\x07"):
        _, _, position, _ = _LOCATOR.unpack(locator)
        signature, _, _, _, _, _, _, num_listed, num_bytes, offset = _END_64.unpack(tail[: _END_64.size])
        if signature != b"PK\x06\x06" or position != start:
            return False
        stop = start
    return bool(num_listed == num_entries and offset + num_bytes == stop)


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    """Return whether an entry of the zip directory has at most one field with 64-bit sizes."""
    num_wide, rest = 0, entry.extra
    while rest:
        kind, num_bytes = struct.unpack("<2H", rest[:4])
        num_wide += kind == 1
        rest = rest[4 + num_bytes :]
    return num_wide <= 1


def _pickle_problem(data: bytes) -> str | None:
    """Return why a pickle is refused, or None. The number of items in its values is computed from its opcodes."""
    marker = 0  # a mark on the stack; the number of items of a value is at least 1
    stack: list[int] = []  # number of items of each value on the stack of the unpickler
    memo: dict[object, int] = {}
    num_items = 0
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if argument in _BYTEARRAYS:
                return "builds a bytearray, whose size cannot be checked"
            popped = 0
            for kind in reversed(opcode.stack_before):
                if kind is pickletools.stackslice:
                    while stack[-1] != marker:
                        popped += stack.pop()
                else:
                    popped += stack.pop()
            if opcode.name == "MEMOIZE":
                memo[len(memo)] = popped
            elif opcode.name.endswith("PUT"):
                memo[argument] = stack[-1]
            pushed = memo[argument] if opcode.name.endswith("GET") else 1 + popped
            num_items += pushed if opcode.name.endswith(("GET", "DUP")) else 1
            if num_items > _MAX_ITEMS:
                return f"has nested values of more than {_MAX_ITEMS:,} items"
            stack.extend(marker if kind is pickletools.markobject else pushed for kind in opcode.stack_after)
    except (IndexError, KeyError, ValueError) as error:
        return f"contains a damaged pickle ({type(error).__name__})"
    return None
