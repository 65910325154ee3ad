"""`write_checkpoint`: writes a checkpoint atomically, even if the machine stops during the save.

All files are written and synced in a folder with a temporary name, the manifest last. Then the folder is renamed to its
final name. A folder with a final name is therefore complete. A folder with a temporary name may be incomplete.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import secrets
import shutil
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopwright.checkpoint.encode import encode, in_place
from loopwright.checkpoint.files import (
    MANIFEST,
    MAX_STATE_BYTES,
    MAX_STATE_COMMAS,
    MODEL,
    OPTIMIZER,
    STATE,
    STATE_TENSORS,
    TEMPORARY_PREFIX,
    FileRecord,
    Manifest,
)
from loopwright.checkpoint.host_copies import HostCopies
from loopwright.checkpoint.outline import outline
from loopwright.checkpoint.read import verify_checkpoint
from loopwright.checkpoint.safetensors_layout import safetensors_chunks
from loopwright.errors import CheckpointError, SaveError, SettingError, SettingTypeError, room

_LEAST_BYTES_FOR_THREADS = 1 << 20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# Content of each file of a checkpoint except the manifest, by file name, as a list of chunks of bytes.
Contents = Mapping[str, Sequence[memoryview]]


def write_checkpoint(folder: Path, state: Mapping[str, object], *, step: int, world_size: int = 1) -> Path:
    """Write ``state`` to the checkpoint ``folder``: call `pack`, then `write_contents`."""
    return write_contents(folder, pack(state), step=step, world_size=world_size)


def write_contents(
    folder: Path, contents: Contents, *, step: int, world_size: int = 1, reads_back: bool = False
) -> Path:
    """Write a checkpoint folder, and replace an older folder of the same name.

    Args:
        folder: path of the checkpoint; missing parents are created.
        contents: file contents returned by `pack`.
        step: number of completed steps.
        world_size: number of ranks that share this state.
        reads_back: whether all files are read and verified before the folder gets its final name.

    Returns:
        ``folder``, synced to disk with all its files.

    Raises:
        SaveError: if writing fails. The message is one line. If the disk is full, the message contains the needed and
            the free number of bytes. An older checkpoint at ``folder`` is kept, except if only the last sync fails:
            then the new checkpoint has already replaced the older one.
    """
    num_bytes = sum(chunk.nbytes for chunks in contents.values() for chunk in chunks)
    temporary = folder.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-{folder.name}"
    try:
        _make_parents(folder.parent)
        os.mkdir(temporary)
        manifest = Manifest(
            step=step,
            world_size=world_size,
            torch=torch.__version__,
            loopwright=_version(),
            files=_write_files(temporary, contents),
        )
        _write_files(temporary, {MANIFEST: [memoryview(manifest.to_bytes())]})
        _sync_folder(temporary)
        _check_sizes(temporary, manifest)
        if reads_back:
            _read_back(temporary)
        _put(temporary, folder)
    except BaseException as error:
        with suppress(OSError):  # If removing fails, `clean_leftovers` removes the folder later.
            remove_checkpoint(temporary)
        if isinstance(error, OSError):
            raise SaveError(_line(folder, error, num_bytes)) from error
        raise
    return folder


def clean_leftovers(root: Path) -> list[Path]:
    """Remove temporary folders of interrupted saves from ``root``, the folder of a run's checkpoints.

    No save to ``root`` may be running.

    If a process is killed between the last sync and the rename, it leaves a complete checkpoint with a temporary name.
    This name ends with the final name. If no folder has the final name, the temporary folder is renamed to the final
    name. An interruption between the two renames of a replacement therefore never loses both checkpoints.

    Returns:
        The paths of all temporary folders that were found, including the renamed folders.

    Raises:
        SaveError: if a temporary folder cannot be removed or renamed.
    """
    try:
        found = [path for path in root.iterdir() if path.name.startswith(TEMPORARY_PREFIX)] if root.is_dir() else []
        for path in sorted(found, key=_manifest_time, reverse=True):
            target = root / path.name.removeprefix(TEMPORARY_PREFIX).partition("-")[2]
            if target != root and not os.path.lexists(target) and _is_whole(path):
                os.rename(path, target)
                _sync_folder(root)
            else:
                remove_checkpoint(path)
    except OSError as error:
        raise SaveError(f"{root}: cannot remove unfinished checkpoints: {error.strerror}") from error
    return found


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint folder if it exists.

    The folder is renamed to a temporary name first, so that a partly removed folder is not mistaken for a checkpoint.
    """
    try:
        if not path.name.startswith(TEMPORARY_PREFIX):
            path, named = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}", path
            os.rename(named, path)
            _sync_folder(path.parent)  # Otherwise a power failure could undo the rename after files were removed.
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return


def pack(state: Mapping[str, object], copies: HostCopies | None = None) -> Contents:
    """Return the contents of the files that store a state.

    Args:
        state: mapping with ``"model"`` (tensors by name, without the prefixes that wrappers such as DDP add),
            optionally ``"optimizer"``, and any further entries that `encode` accepts.
        copies: object that copies the tensors to host memory; None: the contents share memory with the state's CPU
            tensors.

    Raises:
        SettingError: if the state contains a value that cannot be stored.
    """
    parts: dict[str, object] = {MODEL: _by_name("model", state.get("model"))}
    if "optimizer" in state:
        parts[OPTIMIZER] = _by_name("optimizer", state["optimizer"])
    rest = {key: value for key, value in state.items() if key not in ("model", "optimizer")}
    parts[STATE_TENSORS] = _by_name("state", rest)
    tensors: dict[str, dict[str, Tensor]] = {OPTIMIZER: {}}
    trees: dict[str, Any] = {}
    for name, part in parts.items():
        key = name.removesuffix(".safetensors")
        on_host = in_place if copies is None else functools.partial(copies.take, name)
        trees[key], tensors[name] = encode(part, "" if name == STATE_TENSORS else key, on_host)
    trees["outline"] = outline(trees)
    text = json.dumps(trees, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > MAX_STATE_BYTES:
        raise SettingError("state", f": {len(text)} bytes without the tensors; expected at most {MAX_STATE_BYTES}.")
    if text.count(b",") > MAX_STATE_COMMAS:
        problem = f": {text.count(b','):,} values without the tensors; expected at most {MAX_STATE_COMMAS:,}"
        raise SettingError("state", f"{problem}; store long lists of numbers as tensors.")
    if copies is not None:
        copies.end()
    return {name: safetensors_chunks(part) for name, part in tensors.items()} | {STATE: [memoryview(text)]}


def _by_name(part: str, values: object) -> dict[str, object]:
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise SettingTypeError(part, f": expected a mapping with names as keys, not {type(values).__name__}.")
    return dict(values)


def _write_files(folder: Path, contents: Contents) -> dict[str, FileRecord]:
    """Write and sync new files, and return their sizes and hashes.

    Hashing is slower than many disks. Threads therefore hash the chunks in memory while the chunks are written. One
    core is left for writing. If the other cores are idle, hashing adds almost no time. If the files are small, starting
    a thread takes longer than hashing, and no thread is started.
    """
    descriptors: dict[str, int] = {}
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sizes = {name: sum(chunk.nbytes for chunk in chunks) for name, chunks in contents.items()}
    is_small = sum(sizes.values()) < _LEAST_BYTES_FOR_THREADS
    num_hashed = max(1, min(len(contents), num_cores - 1))
    with ThreadPoolExecutor(max_workers=num_hashed) as pool:
        digests = {name: pool.submit(_sha256, chunks) for name, chunks in contents.items() if not is_small}
        try:
            for name, chunks in contents.items():
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptors[name] = os.open(folder / name, flags, 0o666)
                for chunk in chunks:
                    rest = chunk
                    while rest:
                        rest = rest[os.write(descriptors[name], rest) :]
            for descriptor in descriptors.values():
                os.fsync(descriptor)
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)
        found = {
            name: digests[name].result() if name in digests else _sha256(chunks) for name, chunks in contents.items()
        }
    return {name: FileRecord(num_bytes=sizes[name], sha256=digest) for name, digest in found.items()}


def _sha256(chunks: Sequence[memoryview]) -> str:
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()


def _check_sizes(folder: Path, manifest: Manifest) -> None:
    """Check the file sizes on the disk, because older checkpoints may be removed after this save."""
    for name, record in manifest.files.items():
        num_bytes = os.stat(folder / name).st_size
        if num_bytes != record.num_bytes:
            raise OSError(errno.EIO, f"{name} has {num_bytes} bytes on the disk, but {record.num_bytes} were written")


def _read_back(temporary: Path) -> None:
    try:
        verify_checkpoint(temporary)
    except CheckpointError as error:
        raise OSError(errno.EIO, f"the files on the disk differ from what was written ({error})") from error


def _put(temporary: Path, folder: Path) -> None:
    """Rename ``temporary`` to ``folder``. An older ``folder`` is renamed first, and removed afterwards."""
    aside = None
    if os.path.lexists(folder):
        aside = folder.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-{folder.name}"
        os.rename(folder, aside)
    try:
        os.rename(temporary, folder)
    except BaseException:
        if aside is not None:
            os.rename(aside, folder)
        raise
    _sync_folder(folder.parent)
    if aside is not None:
        with suppress(OSError):  # The new checkpoint is complete. `clean_leftovers` removes the old one later.
            remove_checkpoint(aside)


def _make_parents(folder: Path) -> None:
    """Create ``folder`` and its missing parents, and sync the parent of each new folder."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(path)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole(path: Path) -> bool:
    try:
        verify_checkpoint(path)
    except CheckpointError:
        return False
    return True


def _manifest_time(path: Path) -> int:
    try:
        return os.lstat(path / MANIFEST).st_mtime_ns
    except OSError:
        return 0


@functools.cache  # the metadata of the package is a file
def _version() -> str:
    try:
        return importlib.metadata.version("loopwright")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _line(folder: Path, error: OSError, num_bytes: int) -> str:
    line = f"{folder}: not saved: {error.strerror or error}"
    if error.errno in _NO_SPACE:
        line += f"; {room(num_bytes, folder.parent)}"
    return line
