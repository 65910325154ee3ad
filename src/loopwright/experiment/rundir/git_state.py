"""`git_state`: returns the commit and the uncommitted changes of the git checkout around a directory.

If git opened the files of the working tree, git would run programs that the configuration of the checkout names.
Therefore, this module reads the files and compares their object ids with the object ids in the index.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loopwright.experiment.rundir.git_repository import (
    BorrowingRepository,
    Record,
    find_checkout,
    git_dir_of,
    new_hash,
)
from loopwright.regular_files import open_regular

_MAX_HASHED_BYTES = 1 << 30  # a larger file is recorded by its size only
_CHUNK_BYTES = 1 << 20

_LINK, _SUBMODULE, _FILE, _PROGRAM = b"120000", b"160000", b"100644", b"100755"  # modes of entries in an index
_LEFT_OUT = 0x40000000  # flag of an index entry that a sparse checkout leaves out
# `git ls-files --stage --debug -z` prints the mode, object id, stage and path of a file, then the status of the file.
_ENTRY = re.compile(rb"(\d{6}) ([0-9a-f]{40,64}) ([0-3])\t(.+)", re.DOTALL)
_STATUS = re.compile(
    rb"ctime: (\d+):(\d+)\n.*mtime: (\d+):(\d+)\n.*ino: (\d+)\n.*size: (\d+)\tflags: (\w+)\n", re.DOTALL
)
# Text that Git LFS commits instead of the content of a file.
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"
_TOO_LARGE = b"size %d: too large to be recorded\n"


def git_state(directory: Path) -> tuple[dict[str, Any], str | None]:
    """Return the commit and the uncommitted changes of the git checkout around ``directory``.

    The changes of all tracked files are returned in the format of ``git diff --binary HEAD``. The changes in submodules
    are appended. The bytes on the disk are compared: git runs no filter, text conversion or external diff program, and
    fetches no objects.

    The contents of changed files are recorded up to 64 MiB in total. A file that is larger than the rest of
    this limit is recorded as a Git LFS pointer with the SHA-256 of the file. A file of more than 1 GiB is recorded by
    its size.

    Returns:
        The keys ``commit`` and ``is_dirty``, and the text of the changes. All values are None without a checkout. If
        git fails or needs more than 20 s, values that are not known yet are None.
    """
    state: dict[str, Any] = {"commit": None, "is_dirty": None}
    try:
        found = find_checkout(directory.resolve())
        if found is None:
            return state, None
        with TemporaryDirectory(prefix="loopwright-git-") as scratch:
            checkouts = [_Checkout(*found, "", Record(Path(scratch)))]
            state["commit"] = checkouts[0].commit().decode("ascii")
            diff = b""
            for checkout in checkouts:  # this loop also visits the submodules that it appends
                text, submodules = checkout.changes()
                diff += text
                checkouts += submodules
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: a null character in a path
        return state, None
    return {**state, "is_dirty": bool(diff)}, diff.decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file in the index.

    Attributes:
        path: path relative to the top folder.
        mode: type and permissions as six octal digits.
        oid: object id, hexadecimal.
        status: ctime and mtime in seconds and nanoseconds, inode and size of the file at the time when git last
            compared the file with ``oid``. None for a file with merge conflicts, and for a file whose mtime is not
            earlier than the mtime of the index.
        is_left_out: whether a sparse checkout leaves the file out of the working tree.
    """

    path: bytes
    mode: bytes
    oid: bytes
    status: tuple[int, ...] | None
    is_left_out: bool


class _Checkout:
    """The checkout around a directory, or one of its submodules.

    Args:
        top: top folder of the working tree.
        git_dir: folder that contains HEAD and the index.
        prefix: path of ``top`` in the outermost checkout with a slash at its end; empty for the outermost checkout.
        record: bytes and seconds that may still be used, and the folder for temporary files. A checkout shares the
            record with its submodules.
    """

    def __init__(self, top: Path, git_dir: Path, prefix: str, record: Record) -> None:
        self._top, self._prefix, self._record = top, prefix, record
        self._repository = BorrowingRepository(git_dir, record)
        self._folders: set[bytes] = set()  # folders of the working tree that are known not to be links

    def commit(self) -> bytes:
        """Return the id of the checked out commit."""
        return self._repository.run("rev-parse", "--verify", "HEAD^{commit}").strip()

    def changes(self) -> tuple[bytes, list[_Checkout]]:
        """Return a diff of the tracked files, and the submodules that are checked out."""
        lines, submodules = [], []
        for entry in self._entries():
            mode, oid = entry.mode, entry.oid
            if mode != _SUBMODULE:
                mode, oid = self._present(entry)
            elif (found := self._submodule(entry.path)) is not None:
                submodule, oid = found
                submodules.append(submodule)
            if mode:
                lines.append(b"%s %s\t%s\0" % (mode, oid, entry.path))
        self._repository.run("update-index", "-z", "--index-info", given=b"".join(lines))
        prefixes = [f"--src-prefix=a/{self._prefix}", f"--dst-prefix=b/{self._prefix}"]
        options = ["--patch", "--binary", "-M", "--no-ext-diff", "--no-textconv", "--no-color", *prefixes]
        return self._repository.run("diff-index", "--cached", *options, "HEAD"), submodules

    def _entries(self) -> Iterable[_Entry]:
        """Return the files in the index, one entry for each path."""
        index = self._repository.git_dir / "index"
        if not os.path.lexists(index):  # git creates the index when the first file is added
            return []
        with open(open_regular(index, follows_links=True), "rb") as opened:
            written_ns = os.fstat(opened.fileno()).st_mtime_ns
        parts = self._repository.run("ls-files", "--stage", "--debug", "-z", index=index).split(b"\0")
        found: dict[bytes, _Entry] = {}
        for part, following in pairwise(parts):
            entry, after = _ENTRY.search(part), _ENTRY.search(following)
            if entry is None:
                raise OSError(f"git ls-files: unknown output {part!r:.80}")
            mode, oid, stage, path = entry.groups()
            status = _STATUS.search(following, 0, len(following) if after is None else after.start())
            numbers = None if status is None else tuple(map(int, status.groups()[:-1]))
            is_reliable = numbers is not None and stage == b"0" and numbers[2] * 10**9 + numbers[3] < written_ns
            is_left_out = status is not None and bool(int(status[7], 16) & _LEFT_OUT)
            if _is_below(path):
                found[path] = _Entry(path, mode, oid, numbers if is_reliable else None, is_left_out)
        return found.values()

    def _present(self, entry: _Entry) -> tuple[bytes, bytes]:
        """Return the mode and the object id of a file in the working tree.

        If a sparse checkout leaves the file out, return the mode and the object id in the index. If the file is missing
        for another reason, or is neither a regular file nor a link, return an empty mode.
        """
        path = self._path(entry.path)
        try:
            self._check_folders(entry.path)
            status = os.lstat(path)
        except OSError:
            return (entry.mode, entry.oid) if entry.is_left_out else (b"", b"")
        mode = _mode(status)
        if not self._repository.has_file_mode and mode in (_FILE, _PROGRAM) and entry.mode in (_FILE, _PROGRAM):
            mode = entry.mode
        if not mode or (mode == entry.mode and entry.status == _numbers(status)):
            return mode, entry.oid
        if mode == _LINK:
            return mode, self._repository.store(os.readlink(path), len(entry.oid))
        return mode, self._object_id(path, entry.oid)

    def _object_id(self, path: bytes, recorded: bytes) -> bytes:
        """Return the object id of a regular file. If the file has changed, store an object with this id.

        The object contains the content of the file. If the content exceeds the size limit of the record, the object
        contains a Git LFS pointer with the SHA-256 of the file. For a file of more than 1 GiB, the object contains only
        the size of the file.

        Args:
            path: path of the file.
            recorded: object id of the file in the index.
        """
        with open(open_regular(path), "rb") as file:
            left = num_bytes = os.fstat(file.fileno()).st_size
            if num_bytes > _MAX_HASHED_BYTES:
                return self._repository.store(_TOO_LARGE % num_bytes, len(recorded))
            is_kept = num_bytes <= self._record.num_bytes
            plain, blob, kept = hashlib.sha256(), new_hash(len(recorded), num_bytes), []
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                self._record.seconds()
                left -= len(chunk)
                plain.update(chunk)
                blob.update(chunk)
                if is_kept:
                    kept.append(chunk)
        if blob.hexdigest().encode() == recorded:
            return recorded
        pointer = _POINTER % (plain.hexdigest().encode(), num_bytes)
        oid = self._repository.store(pointer, len(recorded))
        if oid == recorded or not is_kept:
            return oid
        self._record.num_bytes -= num_bytes
        return self._repository.store(b"".join(kept), len(recorded))

    def _submodule(self, path: bytes) -> tuple[_Checkout, bytes] | None:
        """Return a submodule and the id of its commit, or None if the submodule is not checked out."""
        top = Path(os.fsdecode(self._path(path)))
        try:
            self._check_folders(path + b"/")
            git_dir = git_dir_of(top)
            if git_dir is None:
                return None
            found = _Checkout(top, git_dir, f"{self._prefix}{os.fsdecode(path)}/", self._record)
            return found, found.commit()
        except (NotADirectoryError, FileNotFoundError, subprocess.CalledProcessError):
            return None

    def _check_folders(self, path: bytes) -> None:
        """Raise an `OSError` if a folder on a path is missing or a link. A link could lead out of the working tree."""
        folder = b""
        for part in path.split(b"/")[:-1]:
            folder += part + b"/"
            if folder not in self._folders:
                if not stat.S_ISDIR(os.lstat(self._path(folder[:-1])).st_mode):
                    raise NotADirectoryError(folder)
                self._folders.add(folder)

    def _path(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self._top), path)


def _is_below(path: bytes) -> bool:
    """Return whether a path in the index is inside the working tree. Git does not check the paths of an index."""
    return not any(part.lower() in (b"", b".", b"..", b".git") for part in path.split(b"/"))


def _mode(status: os.stat_result) -> bytes:
    """Return the mode that git records for a file; empty if the file is neither a regular file nor a link."""
    if stat.S_ISLNK(status.st_mode):
        return _LINK
    if not stat.S_ISREG(status.st_mode):
        return b""
    return _PROGRAM if status.st_mode & stat.S_IXUSR else _FILE


def _numbers(status: os.stat_result) -> tuple[int, ...]:
    """Return the 32-bit numbers that git compares to detect a changed file, in the order of `_STATUS`."""
    times = (*divmod(status.st_ctime_ns, 10**9), *divmod(status.st_mtime_ns, 10**9))
    return tuple(number & 0xFFFFFFFF for number in (*times, status.st_ino, status.st_size))
