"""Functions that open, read and replace regular files.

Pipes and devices are not opened, because reading a pipe can block and reading a device may never end.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

_LEAST_SPARSE_BYTES = 1 << 27  # a smaller sparse file is accepted, because reading it takes little time


def open_regular(path: str | bytes | os.PathLike[str], *, follows_links: bool = False) -> int:
    """Open a regular file for reading, and return its descriptor.

    The type of the file is checked before the file is opened, because opening a pipe can block forever and opening a
    device can have side effects. The type is checked again on the descriptor, because the file may have been replaced.

    Args:
        path: path of the file.
        follows_links: whether ``path`` may be a symbolic link to a regular file. Parent folders may always be links.

    Raises:
        OSError: if the file is missing, is not a regular file, or cannot be opened.
    """
    _check(path, os.stat(path, follow_symlinks=follows_links))
    return _opened(path, os.O_RDONLY if follows_links else os.O_RDONLY | os.O_NOFOLLOW)


def open_to_append(path: str | bytes | os.PathLike[str]) -> int:
    """Open a regular file for reading and appending, and return its descriptor. Create a missing file.

    Raises:
        OSError: if the file is a link, is not a regular file, or cannot be opened.
    """
    if os.path.lexists(path):
        _check(path, os.lstat(path))
    return _opened(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW)


def regular_size(path: str | bytes | os.PathLike[str]) -> int:
    """Return the size in bytes of a regular file. A symbolic link is followed.

    Raises:
        OSError: if the file is missing or is not a regular file.
    """
    status = os.stat(path)
    _check(path, status)
    return status.st_size


def read_regular(path: str | bytes | os.PathLike[str], max_bytes: int, *, follows_links: bool = False) -> bytes:
    """Return the content of a regular file. Bytes that are appended after the file was opened are not read.

    Args:
        path: path of the file.
        max_bytes: largest accepted size. The size is checked before memory is allocated.
        follows_links: whether ``path`` may be a symbolic link to a regular file.

    Raises:
        OSError: if the file is missing, is not a regular file, is larger than ``max_bytes``, or cannot be read, and for
            a file of at least 128 MiB that consists almost entirely of holes.
    """
    with open(open_regular(path, follows_links=follows_links), "rb") as file:
        status = os.fstat(file.fileno())
        num_bytes = status.st_size
        if num_bytes > max_bytes:
            raise OSError(errno.EFBIG, f"{num_bytes:,} bytes; expected at most {max_bytes:,}", os.fspath(path))
        if is_sparse(file.fileno(), status, _LEAST_SPARSE_BYTES):
            raise OSError(errno.EFBIG, f"almost none of its {num_bytes:,} bytes are on the disk", os.fspath(path))
        return file.read(num_bytes)


def is_sparse(descriptor: int, status: os.stat_result, least_bytes: int) -> bool:
    """Return whether a file of at least ``least_bytes`` bytes consists almost entirely of holes.

    Creating such a file takes little time, but reading it can take hours. The number of allocated blocks does not
    suffice to find holes, because some network file systems report 0 blocks for every file.
    """
    if status.st_size < least_bytes or status.st_blocks * 512 > status.st_size // 1000:
        return False
    has_hole = os.lseek(descriptor, 0, os.SEEK_HOLE) < status.st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    return has_hole


def replace_file(file: Path, content: bytes) -> None:
    """Replace a file atomically. If an error occurs, the old file is unchanged. A link is replaced by a regular file.

    Raises:
        OSError: if the new file cannot be written.
    """
    partial = file.with_name(f".{file.name}-{os.getpid()}")
    with suppress(FileNotFoundError):  # a killed process with an equal ID may have left a file with this name
        os.unlink(partial)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(content)
        os.replace(partial, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def _opened(path: str | bytes | os.PathLike[str], flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        _check(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: str | bytes | os.PathLike[str], status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        problem = "not a regular file; folders, links, pipes and devices are not opened"
        raise OSError(errno.EINVAL, problem, os.fspath(path))
