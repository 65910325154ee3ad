"""Files that are not regular files, or that look larger than the disk, for tests of reading foreign folders."""

from __future__ import annotations

import os
import socket
from pathlib import Path

HOLES = 1 << 40  # bytes of a file that occupies no space on the disk
KINDS = ("pipe", "device", "socket", "folder")  # of files that are not regular


def make(path: Path, kind: str) -> None:
    """Replace ``path`` by a file of one of the `KINDS`, or by ``holes``, a regular file of `HOLES` bytes."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        directory = os.open(path.parent, os.O_DIRECTORY)  # the path of a socket may have about 100 characters
        try:
            with socket.socket(socket.AF_UNIX) as unused:
                unused.bind(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, HOLES)
