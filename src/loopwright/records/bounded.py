"""`read_at_most` and `read_record`, which read files of unknown origin in a bounded amount of memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from loopwright.errors import CheckpointError, on_one_line

MAX_RECORD_BYTES = 1 << 24  # for a file that a run writes once, such as summary.json
MAX_LOG_BYTES = 1 << 32  # for a file that grows during a run, such as metrics.jsonl

_LEAST_SPARSE_BYTES = 1 << 26


def read_at_most(file: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file. The type and the size are checked before memory is allocated.

    Raises:
        OSError: if the file cannot be opened or is a link. Also with the error number EFBIG or EINVAL and a reason in
            ``strerror``, if the file has more than ``max_bytes`` bytes, consists of holes, or is not a regular file.
    """
    # Opening a pipe could block forever without O_NONBLOCK.
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    size = status.st_size
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    with open(descriptor, "rb") as opened:
        if size > max_bytes:
            raise OSError(errno.EFBIG, f"{size:,} bytes; expected at most {max_bytes:,}", str(file))
        if is_sparse(descriptor, status, _LEAST_SPARSE_BYTES):
            raise OSError(errno.EFBIG, f"almost none of its {size:,} bytes are on the disk", str(file))
        return opened.read(size)


def read_record(file: Path, max_bytes: int = MAX_RECORD_BYTES) -> bytes | None:
    """Return the content of a file that a run recorded, or None if there is no such file.

    Raises:
        CheckpointError: if the file cannot be opened, is not a regular file, has more than ``max_bytes`` bytes, or
            consists of holes.
    """
    try:
        return read_at_most(file, max_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problem = f"cannot be read: {error.strerror}; expected the file that a run recorded, or no file."
        raise CheckpointError(f"{on_one_line(str(file))}: {problem}") from None


def is_sparse(descriptor: int, status: os.stat_result, least_bytes: int) -> bool:
    """Return whether a file of at least ``least_bytes`` bytes consists almost entirely of holes.

    Such a file takes little time to create, but hours to read. The number of allocated blocks alone does not show
    holes: some network file systems report 0 blocks for every file.
    """
    if status.st_size < least_bytes or status.st_blocks * 512 > status.st_size // 1000:
        return False
    has_hole = os.lseek(descriptor, 0, os.SEEK_HOLE) < status.st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    return has_hole
