"""`write_checkpoint`: a whole checkpoint or none, also where the machine stops in between.

Everything is written and synced under a temporary name in the same folder, the manifest last, then renamed. So a
folder without the temporary name is whole, and one with it was cut short, or was just about to be renamed.
"""

from __future__ import annotations

import errno
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
from functools import partial
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

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# The bytes of each file of a checkpoint but its manifest, in pieces.
Contents = Mapping[str, Sequence[memoryview]]


def write_checkpoint(folder: Path, state: Mapping[str, object], *, step: int, world_size: int = 1) -> Path:
    """Write ``state`` as the checkpoint ``folder``: `pack` and `write_contents` in one."""
    return write_contents(folder, pack(state), step=step, world_size=world_size)


def write_contents(
    folder: Path, contents: Contents, *, step: int, world_size: int = 1, reads_back: bool = False
) -> Path:
    """Write a checkpoint, replacing an older one of that name.

    Args:
        folder: parents are created.
        contents: of `pack`.
        step: steps completed.
        world_size: ranks that share this state.
        reads_back: whether it is read and hashed once more before it gets its name.

    Returns:
        ``folder``; everything in it is synced.

    Raises:
        SaveError: if writing fails, in one line, with needed and free bytes where the disk is full. What stood at
            ``folder`` before still does, unless only the last sync failed, when the new one does.
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
        with suppress(OSError):  # `clean_leftovers` finds what cannot be removed now
            remove_checkpoint(temporary)
        if isinstance(error, OSError):
            raise SaveError(_line(folder, error, num_bytes)) from error
        raise
    return folder


def clean_leftovers(root: Path) -> list[Path]:
    """Remove what killed writers left in ``root``, a folder of checkpoints that nobody is writing to.

    A kill between the last sync and the rename leaves a whole checkpoint under a temporary name that ends in its own.
    It gets its own name where nothing stands there, so that replacing a checkpoint never ends with neither.

    Returns:
        The temporary paths found.

    Raises:
        SaveError: if one of them cannot be removed.
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
        raise SaveError(f"{root}: cannot be cleaned of unfinished checkpoints: {error.strerror}") from error
    return found


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint folder, under a temporary name: half removed, it is no checkpoint. A missing one is fine."""
    try:
        if not path.name.startswith(TEMPORARY_PREFIX):
            path, named = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}", path
            os.rename(named, path)
            _sync_folder(path.parent)  # or else, after a power cut, its files could be gone and its name not
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return


def pack(state: Mapping[str, object], copies: HostCopies | None = None) -> Contents:
    """The bytes of the files that hold a state.

    Args:
        state: ``"model"`` (tensors by plain name), optionally ``"optimizer"``, and any further entries that
            `encode` accepts.
        copies: where tensors are copied to; None: their memory is shared where it is the CPU's.

    Raises:
        SettingError: if the state holds something that cannot be stored.
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
        on_host = in_place if copies is None else partial(copies.take, name)
        trees[key], tensors[name] = encode(part, "" if name == STATE_TENSORS else key, on_host)
    trees["outline"] = outline(trees)
    text = json.dumps(trees, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > MAX_STATE_BYTES:
        raise SettingError("state", f": {len(text)} bytes besides tensors; expected at most {MAX_STATE_BYTES}.")
    if text.count(b",") > MAX_STATE_COMMAS:
        problem = f": {text.count(b','):,} values besides tensors; expected at most {MAX_STATE_COMMAS:,}"
        raise SettingError("state", f"{problem}, and long lists of numbers as tensors.")
    if copies is not None:
        copies.end()
    return {name: safetensors_chunks(part) for name, part in tensors.items()} | {STATE: [memoryview(text)]}


def _by_name(part: str, values: object) -> dict[str, object]:
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise SettingTypeError(part, f": expected a mapping with names as keys, not {type(values).__name__}.")
    return dict(values)


def _write_files(folder: Path, contents: Contents) -> dict[str, FileRecord]:
    """Write new files, and sync them.

    They are hashed meanwhile, from the same memory and as many at a time as leave a core to the writing (hashing is
    slower than many a disk): where cores are free, the hashes are nearly free, too.
    """
    descriptors: dict[str, int] = {}
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_hashed = max(1, min(len(contents), num_cores - 1))
    with ThreadPoolExecutor(max_workers=num_hashed) as pool:
        digests = {name: pool.submit(_sha256, chunks) for name, chunks in contents.items()}
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
        sizes = {name: sum(chunk.nbytes for chunk in chunks) for name, chunks in contents.items()}
        return {name: FileRecord(num_bytes=sizes[name], sha256=digests[name].result()) for name in contents}


def _sha256(chunks: Sequence[memoryview]) -> str:
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()


def _check_sizes(folder: Path, manifest: Manifest) -> None:
    """Ask the disk once more, as older checkpoints may be removed when this one stands."""
    for name, record in manifest.files.items():
        num_bytes = os.stat(folder / name).st_size
        if num_bytes != record.num_bytes:
            raise OSError(errno.EIO, f"{name} has {num_bytes} bytes on the disk, of {record.num_bytes} written")


def _read_back(temporary: Path) -> None:
    try:
        verify_checkpoint(temporary)
    except CheckpointError as error:
        raise OSError(errno.EIO, f"read back otherwise than it was written ({error})") from error


def _put(temporary: Path, folder: Path) -> None:
    """Rename ``temporary`` to ``folder``; an older ``folder`` is moved aside and removed when the new one stands."""
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
        with suppress(OSError):  # the new checkpoint stands; `clean_leftovers` removes what is left of the old
            remove_checkpoint(aside)


def _make_parents(folder: Path) -> None:
    """Create ``folder`` and its parents, each synced into its own parent."""
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
