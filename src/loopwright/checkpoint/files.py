"""The files of a checkpoint folder: their names, the manifest, and how a foreign one is opened and parsed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, on_one_line

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
MAX_STATE_COMMAS = 4 << 20  # about as many values as that can be read in seconds

_CHUNK_BYTES = 1 << 22
_LARGE_BYTES = 1 << 34
_MAX_PROBLEM = 500  # characters of what is wrong that are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """Size and SHA-256 (hexadecimal) of one file."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint folder holds, written last: a folder without a whole one is no checkpoint.

    It finds damage. It proves no author: whoever changes a file can change the manifest to fit.
    """

    step: int
    world_size: int
    torch: str
    loopwright: str
    files: Mapping[str, FileRecord]

    def to_bytes(self) -> bytes:
        """The manifest file: one spelling only, with a digest of itself, so that any changed bit shows."""
        return _sign({"schema": SCHEMA, **asdict(self)})


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a checkpoint folder, not yet the files it names.

    Raises:
        CheckpointError: if the folder is missing or a link, or the manifest is missing, damaged, of another
            version or names other files than a checkpoint has.
    """
    check_folder(folder)
    data = read_file(folder, MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    values = parse_json(folder, MANIFEST, data)
    if not _is_signed(values, data):
        raise fault(folder, MANIFEST, "damaged: it does not have the SHA-256 it names")
    if values.get("schema") != SCHEMA:
        writer = f"written by loopwright {values.get('loopwright')!r:.40}, another version; use that one"
        raise fault(folder, MANIFEST, f"schema={values.get('schema')!r:.40}: expected {SCHEMA}; {writer}")
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
        raise fault(folder, MANIFEST, f"names other files than {', '.join(DATA_FILES)}")
    if manifest.to_bytes() != data:
        raise fault(folder, MANIFEST, "not a manifest (it says more than one)")
    named = STEP_FOLDER.fullmatch(folder.name)
    if named and int(named[1]) != manifest.step:
        raise fault(folder, MANIFEST, f"that of step {manifest.step}, in a folder of another name")
    return manifest


def check_folder(folder: Path) -> None:
    """Raise `CheckpointError` unless ``folder`` is a directory and no link to one."""
    try:
        mode = os.lstat(folder).st_mode
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: {_reason(error)}") from error
    if stat.S_ISLNK(mode):
        raise CheckpointError(f"{folder}: a link; links are not followed, name the folder itself")
    if not stat.S_ISDIR(mode):
        raise CheckpointError(f"{folder}: not a folder; a checkpoint is a folder with a {MANIFEST}")


def read_file(folder: Path, name: str, record: FileRecord | None = None, max_bytes: int | None = None) -> bytes:
    """The whole of one file, checked before it is allocated, and against its record before it is returned.

    Raises:
        CheckpointError: if the file is missing, a link, no regular file, too large, or not as recorded.
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
    """Raise `CheckpointError` unless the file is as recorded; holds no more than a few megabytes of it."""
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
    """Parse strict JSON: no NaN, no key twice, UTF-8.

    Raises:
        CheckpointError: for anything else.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise fault(folder, name, f"not JSON as written here ({_reason(error)})") from error


def fault(folder: Path, name: str, problem: str) -> CheckpointError:
    """The error for one file of one checkpoint, in one line."""
    return CheckpointError(f"{on_one_line(str(folder))}: {name}: {on_one_line(problem, _MAX_PROBLEM)}")


def _open(folder: Path, name: str, record: FileRecord | None, max_bytes: int | None) -> tuple[int, int]:
    """Open a regular file for reading; its descriptor and size."""
    path = folder / name
    try:
        # Asked before opening, since opening a pipe can wait for ever and opening a device can do anything.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise fault(folder, name, "not a regular file; links, pipes and devices are not opened")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise fault(folder, name, "missing") from error
    except OSError as error:
        raise fault(folder, name, _reason(error)) from error
    status = os.fstat(descriptor)
    num_bytes = status.st_size
    problem = ""
    if not stat.S_ISREG(status.st_mode):  # put there since it was asked
        problem = "not a regular file"
    elif record is not None and num_bytes != record.num_bytes:
        problem = f"{num_bytes} bytes; the manifest says {record.num_bytes}"
    elif max_bytes is not None and num_bytes > max_bytes:
        problem = f"{num_bytes} bytes; at most {max_bytes} are read"
    elif _is_hollow(descriptor, status):
        problem = f"{num_bytes} bytes, of which next to none are on the disk"
    if problem:
        os.close(descriptor)
        raise fault(folder, name, problem)
    return descriptor, num_bytes


def _is_hollow(descriptor: int, status: os.stat_result) -> bool:
    """Whether a large file is next to nothing but holes: quickly made, and read for hours.

    Its blocks alone do not tell, as some network file systems count none.
    """
    if status.st_size < _LARGE_BYTES or status.st_blocks * 512 > status.st_size // 1000:
        return False
    is_hollow = os.lseek(descriptor, 0, os.SEEK_HOLE) < status.st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    return is_hollow


def _sign(values: Mapping[str, object]) -> bytes:
    """The one spelling of a manifest with these values, its digest among them."""
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
        raise ValueError("a key is given twice")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


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
