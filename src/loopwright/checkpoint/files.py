"""File names and the manifest of a checkpoint folder, and functions that read untrusted checkpoint files."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loopwright.errors import CheckpointError, on_one_line
from loopwright.regular_files import is_sparse, open_regular

SCHEMA = 1
SHARDED_SCHEMA = 2  # several processes have written their rows of each tensor into files of their own

MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE_TENSORS = "state.safetensors"
STATE = "state.json"
MANIFEST = "manifest.json"

TENSOR_FILES = (MODEL, OPTIMIZER, STATE_TENSORS)
DATA_FILES = (*TENSOR_FILES, STATE)
MAX_SHARDS = 99_999  # the names of the files have five digits

TEMPORARY_PREFIX = ".tmp-"
STEP_FOLDER = re.compile(r"step_(\d+)")

MAX_MANIFEST_BYTES = 1 << 20
MAX_STATE_BYTES = 256 << 20
# Largest number of commas in the JSON file, about one per value. Parsing this number of values takes seconds.
MAX_STATE_COMMAS = 4 << 20

_SUFFIX = ".safetensors"
_CHUNK_BYTES = 1 << 22
# An optimizer state of zeros is a hole on some file systems, so smaller tensor files may consist of holes.
_LEAST_SPARSE_BYTES = 1 << 34
_MAX_PROBLEM = 500  # largest number of characters of a problem's description in an error message


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """Size and SHA-256 (hexadecimal) of one file."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The step, versions, and file hashes of a checkpoint.

    The manifest is written last, so a folder without a valid manifest is not a checkpoint. The hashes detect damage.
    They do not prove the origin of the files, because a manifest can be changed to match a changed file.
    """

    step: int
    world_size: int
    torch: str
    loopwright: str
    files: Mapping[str, FileRecord]
    shards: int | None = None  # number of processes that have written their rows; None: the tensors are not sharded

    @classmethod
    def of(cls, step: int, world_size: int, files: Mapping[str, FileRecord], *, shards: int | None = None) -> Manifest:
        """Return the manifest of files that this version of Loopwright has written."""
        versions = {"torch": torch.__version__, "loopwright": _version()}
        return cls(step=step, world_size=world_size, files=files, shards=shards, **versions)

    def to_bytes(self) -> bytes:
        """Return the content of the manifest file.

        Equal manifests have equal bytes. The bytes include the SHA-256 of the other values, so that any changed bit is
        detected.
        """
        files = {name: {"num_bytes": each.num_bytes, "sha256": each.sha256} for name, each in self.files.items()}
        versions = {"torch": self.torch, "loopwright": self.loopwright}
        schema = SCHEMA if self.shards is None else SHARDED_SCHEMA
        values = {"schema": schema, "step": self.step, "world_size": self.world_size, **versions, "files": files}
        if self.shards is not None:
            values["shards"] = self.shards
        return _spell({**values, "sha256": hashlib.sha256(_spell(values)).hexdigest()})


def shard_name(name: str, rank: int, num_shards: int) -> str:
    """Return the name of the file with the rows of one process, such as ``model-00001-of-00004.safetensors``.

    Args:
        name: one of `TENSOR_FILES`.
        rank: index of the process, from 0.
        num_shards: number of processes.
    """
    return f"{name.removesuffix(_SUFFIX)}-{rank + 1:05d}-of-{num_shards:05d}{_SUFFIX}"


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a checkpoint folder, but not the files that it lists.

    Raises:
        CheckpointError: if the folder is missing or a link; if the manifest is missing, damaged or of another schema
            version; if the manifest does not list exactly the files in `DATA_FILES`, or their shards; or if its step
            differs from the step in the folder name.
    """
    check_folder(folder)
    data = read_file(folder, MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    values = parse_json(folder, MANIFEST, data)
    try:
        if values["schema"] not in (SCHEMA, SHARDED_SCHEMA):
            remedy = f"use loopwright {values.get('loopwright')!r:.40}, which wrote this checkpoint"
            expected = f"expected {SCHEMA} or {SHARDED_SCHEMA}"
            raise fault(folder, MANIFEST, f"schema={values['schema']!r:.40}: {expected}; {remedy}")
        manifest = Manifest(
            step=_count(values["step"], least=0),
            world_size=_count(values["world_size"], least=1),
            torch=str(values["torch"]),
            loopwright=str(values["loopwright"]),
            files={
                name: FileRecord(num_bytes=_count(record["num_bytes"], least=0), sha256=str(record["sha256"]))
                for name, record in values["files"].items()
            },
            shards=None if values["schema"] == SCHEMA else _count(values["shards"], least=1, most=MAX_SHARDS),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise fault(folder, MANIFEST, f"damaged, or not a manifest ({type(error).__name__}: {error})") from error
    if manifest.to_bytes() != data:
        raise fault(folder, MANIFEST, "damaged: its content does not match the SHA-256 in it")
    _check_files(folder, manifest)
    named = STEP_FOLDER.fullmatch(folder.name)
    if named and int(named[1]) != manifest.step:
        raise fault(folder, MANIFEST, f"belongs to step {manifest.step}, but the folder is named after another step")
    return manifest


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Refuse a manifest that does not list exactly the files of a checkpoint."""
    shards, found = manifest.shards, set(manifest.files)
    if shards is None:
        if found != set(DATA_FILES):
            raise fault(folder, MANIFEST, f"lists other files than {', '.join(DATA_FILES)}")
        return
    if shards != manifest.world_size:
        raise fault(folder, MANIFEST, f"{shards} shards of {manifest.world_size} processes; expected equal numbers")
    expected = f"expected {STATE}, and {len(TENSOR_FILES)} files for each of {shards} shards"
    if len(found) != 1 + len(TENSOR_FILES) * shards:  # checked first, as the names of very many shards take long
        raise fault(folder, MANIFEST, f"lists {len(found)} files; {expected}")
    names = {STATE, *(shard_name(name, rank, shards) for name in TENSOR_FILES for rank in range(shards))}
    if found != names:
        raise fault(folder, MANIFEST, f"lists {min(found - names)!r:.80}; {expected}")


def check_folder(folder: Path) -> None:
    """Raise `CheckpointError` unless ``folder`` is a directory and not a symbolic link."""
    try:
        mode = os.lstat(folder).st_mode
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: {_reason(error)}") from error
    if stat.S_ISLNK(mode):
        raise CheckpointError(f"{folder}: a link; links are not followed, give the folder itself")
    if not stat.S_ISDIR(mode):
        raise CheckpointError(f"{folder}: not a folder; a checkpoint is a folder with a {MANIFEST}")


def read_file(folder: Path, name: str, record: FileRecord | None = None, max_bytes: int | None = None) -> bytes:
    """Return the content of one file.

    The size is checked before memory is allocated. The SHA-256 is checked before the content is returned.

    Args:
        folder: checkpoint folder.
        name: name of the file.
        record: expected size and SHA-256; None: neither is checked.
        max_bytes: largest accepted size; None: any size.

    Raises:
        CheckpointError: if the file is missing, a link, not a regular file, too large, or differs from ``record``.
    """
    descriptor, num_bytes = _open(folder, name, record, max_bytes)
    try:
        with open(descriptor, "rb") as file:
            data = file.read(num_bytes)
    except (OSError, MemoryError, OverflowError) as error:
        raise fault(folder, name, _reason(error)) from error
    if len(data) != num_bytes:
        raise fault(folder, name, f"ended after {len(data)} of {num_bytes} bytes")
    if record is not None and hashlib.sha256(data).hexdigest() != record.sha256:
        raise fault(folder, name, "damaged: its SHA-256 is not the one in the manifest")
    return data


def verify_file(folder: Path, name: str, record: FileRecord, max_bytes: int | None = None) -> None:
    """Raise `CheckpointError` unless the file matches ``record``; at most 4 MiB are in memory at a time."""
    os.close(open_verified(folder, name, record, max_bytes))


def open_verified(folder: Path, name: str, record: FileRecord, max_bytes: int | None = None) -> int:
    """Check a file as `verify_file` does, and return a descriptor from which it can be read."""
    descriptor, _ = _open(folder, name, record, max_bytes)
    hasher = hashlib.sha256()
    try:
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            while chunk := file.read(_CHUNK_BYTES):
                hasher.update(chunk)
        if hasher.hexdigest() != record.sha256:
            raise fault(folder, name, "damaged: its SHA-256 is not the one in the manifest")
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise fault(folder, name, _reason(error)) from error
        raise
    return descriptor


def parse_json(folder: Path, name: str, data: bytes) -> Any:
    """Parse strict JSON: UTF-8 text without NaN, infinities or repeated keys.

    Raises:
        CheckpointError: if ``data`` is not strict JSON.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise fault(folder, name, f"not strict JSON ({_reason(error)})") from error


def fault(folder: Path, name: str, problem: str) -> CheckpointError:
    """Build the one-line error for a problem with a file of a checkpoint."""
    return CheckpointError(f"{on_one_line(str(folder))}: {name}: {on_one_line(problem, _MAX_PROBLEM)}")


def _open(folder: Path, name: str, record: FileRecord | None, max_bytes: int | None) -> tuple[int, int]:
    """Open a regular file for reading, and return its descriptor and size."""
    try:
        descriptor = open_regular(folder / name)
    except FileNotFoundError as error:
        raise fault(folder, name, "missing") from error
    except OSError as error:
        raise fault(folder, name, _reason(error)) from error
    status = os.fstat(descriptor)
    num_bytes = status.st_size
    problem = ""
    if record is not None and num_bytes != record.num_bytes:
        problem = f"{num_bytes} bytes; the manifest says {record.num_bytes}"
    elif max_bytes is not None and num_bytes > max_bytes:
        problem = f"{num_bytes} bytes; expected at most {max_bytes}"
    elif is_sparse(descriptor, status, _LEAST_SPARSE_BYTES):
        problem = f"a sparse file: almost none of its {num_bytes} bytes are on the disk"
    if problem:
        os.close(descriptor)
        raise fault(folder, name, problem)
    return descriptor, num_bytes


def _spell(values: Mapping[str, object]) -> bytes:
    return json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is repeated")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


@functools.cache  # the metadata of the package is a file
def _version() -> str:
    try:
        return importlib.metadata.version("loopwright")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _count(value: object, least: int, most: int = (1 << 63) - 1) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"expected a whole number, {least} or more, not {value!r:.40}")
    return value


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__
