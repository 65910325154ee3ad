"""File names and the manifest of a checkpoint folder, and functions that read untrusted checkpoint files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, on_one_line
from loopwright.regular_files import is_sparse, open_regular

SCHEMA = 1

MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE_TENSORS = "state.safetensors"
STATE = "state.json"
MANIFEST = "manifest.json"

DATA_FILES = (MODEL, OPTIMIZER, STATE_TENSORS, STATE)

TEMPORARY_PREFIX = ".tmp-"
STEP_FOLDER = re.compile(r"step_(\d+)")

MAX_MANIFEST_BYTES = 1 << 20
MAX_STATE_BYTES = 256 << 20
# Largest number of commas in the JSON file, about one per value. Parsing this number of values takes seconds.
MAX_STATE_COMMAS = 4 << 20

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

    def to_bytes(self) -> bytes:
        """Return the content of the manifest file.

        Equal manifests have equal bytes. The bytes include the SHA-256 of the other values, so that any changed bit is
        detected.
        """
        files = {name: {"num_bytes": each.num_bytes, "sha256": each.sha256} for name, each in self.files.items()}
        versions = {"torch": self.torch, "loopwright": self.loopwright}
        return _sign({"schema": SCHEMA, "step": self.step, "world_size": self.world_size, **versions, "files": files})


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a checkpoint folder, but not the files that it lists.

    Raises:
        CheckpointError: if the folder is missing or a link; if the manifest is missing, damaged or of another schema
            version; if the manifest does not list exactly the files in `DATA_FILES`; or if its step differs from the
            step in the folder name.
    """
    check_folder(folder)
    data = read_file(folder, MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    values = parse_json(folder, MANIFEST, data)
    if not _is_signed(values, data):
        raise fault(folder, MANIFEST, "damaged: its content does not match the SHA-256 in it")
    if values.get("schema") != SCHEMA:
        remedy = f"use loopwright {values.get('loopwright')!r:.40}, which wrote this checkpoint"
        raise fault(folder, MANIFEST, f"schema={values.get('schema')!r:.40}: expected {SCHEMA}; {remedy}")
    try:
        manifest = Manifest(
            step=_count(values["step"], least=0),
            world_size=_count(values["world_size"], least=1),
            torch=str(values["torch"]),
            loopwright=str(values["loopwright"]),
            files={
                name: FileRecord(num_bytes=_count(record["num_bytes"], least=0), sha256=_digest(record["sha256"]))
                for name, record in values["files"].items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise fault(folder, MANIFEST, f"not a manifest ({type(error).__name__}: {error})") from error
    if set(manifest.files) != set(DATA_FILES):
        raise fault(folder, MANIFEST, f"lists other files than {', '.join(DATA_FILES)}")
    if manifest.to_bytes() != data:
        raise fault(folder, MANIFEST, "not a manifest (it has unknown fields or malformed values)")
    named = STEP_FOLDER.fullmatch(folder.name)
    if named and int(named[1]) != manifest.step:
        raise fault(folder, MANIFEST, f"belongs to step {manifest.step}, but the folder is named after another step")
    return manifest


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
    descriptor, _ = _open(folder, name, record, max_bytes)
    hasher = hashlib.sha256()
    try:
        with open(descriptor, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                hasher.update(chunk)
    except OSError as error:
        raise fault(folder, name, _reason(error)) from error
    if hasher.hexdigest() != record.sha256:
        raise fault(folder, name, "damaged: its SHA-256 is not the one in the manifest")


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


def _sign(values: Mapping[str, object]) -> bytes:
    """Return the bytes of a manifest with these values and the SHA-256 of the values."""
    return _spell({**values, "sha256": hashlib.sha256(_spell(values)).hexdigest()})


def _is_signed(values: object, data: bytes) -> bool:
    try:
        return isinstance(values, dict) and data == _sign({key: values[key] for key in values if key != "sha256"})
    except RecursionError:
        return False


def _spell(values: Mapping[str, object]) -> bytes:
    return json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is repeated")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _count(value: object, least: int) -> int:
    if type(value) is not int or not least <= value < 1 << 63:
        raise ValueError(f"expected a whole number, {least} or more, not {value!r:.40}")
    return value


def _digest(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"expected a SHA-256, not {value!r:.80}")
    return value


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__
