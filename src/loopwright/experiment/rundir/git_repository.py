"""`BorrowingRepository`: runs git on an untrusted checkout without the checkout's configuration and working tree."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from loopwright.regular_files import read_regular

_SECONDS = 20.0  # time limit of a record: for all git commands and for reading the changed files
_MAX_CONTENT_BYTES = 64 << 20  # total size of the changed files whose content is recorded
_MAX_GIT_FILE_BYTES = 1 << 20  # size of a file such as .git/config

# Git settings that define how objects, refs and file permissions are stored. All other settings are ignored.
_EXTENSIONS = re.compile(rb"^\s*(objectformat|refstorage)\s*=\s*(sha1|sha256|files|reftable)\s*$", re.I | re.M)
_NO_FILE_MODE = re.compile(rb"^\s*filemode\s*=\s*false\s*$", re.I | re.M)


@dataclass(slots=True)
class Record:
    """Remaining time and size limits for recording one checkout and its submodules.

    Attributes:
        scratch: folder for temporary repositories.
        end: value of `time.monotonic` after which `seconds` raises an error.
        num_bytes: number of bytes of file content that may still be recorded.
    """

    scratch: Path
    end: float = field(default_factory=lambda: time.monotonic() + _SECONDS)
    num_bytes: int = field(default_factory=lambda: _MAX_CONTENT_BYTES)

    def seconds(self) -> float:
        """Return the time left in seconds, or raise a `TimeoutError` if none is left."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class BorrowingRepository:
    """A temporary repository with links to the refs and objects of a checkout, and with its own configuration.

    A checkout may come from an untrusted source. The configuration and the attributes of a checkout can name programs
    that git runs, such as ``filter.NAME.clean``. A pipe in the working tree can block git forever. Therefore, git uses
    the configuration of the temporary repository, and an empty folder as the working tree. Git fetches no objects, and
    writes no files into the checkout.

    Args:
        git_dir: folder of the checkout that contains HEAD and the index.
        record: remaining limits, and the folder in which the temporary repository is created.
    """

    def __init__(self, git_dir: Path, record: Record) -> None:
        self.git_dir, self._record = git_dir, record
        self._scratch = Path(mkdtemp(dir=record.scratch))
        self._own_git_dir = self._scratch
        self.has_file_mode = True  # whether permissions of files in the working tree are reliable
        self._set_up()

    def _set_up(self) -> None:
        common, ours = self.git_dir, self._scratch
        if os.path.lexists(self.git_dir / "commondir"):  # a linked worktree
            common /= os.fsdecode(_read(self.git_dir / "commondir").strip())
            ours = self._own_git_dir = self._scratch / "linked"
            ours.mkdir()
            (ours / "commondir").write_text("..\n", encoding="utf-8")
            _link(ours, self.git_dir, ["reftable"])
        theirs = _read(common / "config") if os.path.lexists(common / "config") else b""
        self.has_file_mode = _NO_FILE_MODE.search(theirs) is None
        settings = b"".join(b"%s = %s\n" % pair for pair in _EXTENSIONS.findall(theirs))
        (self._scratch / "config").write_bytes(b"[core]\nrepositoryformatversion = 1\n[extensions]\n" + settings)
        (ours / "HEAD").write_bytes(_read(self.git_dir / "HEAD"))
        _link(ours, self.git_dir, [file.name for file in self.git_dir.glob("sharedindex.*")])
        _link(self._scratch, common, ["refs", "packed-refs", "reftable"])
        for name in ("empty", "theirs", "objects/info"):
            (self._scratch / name).mkdir(parents=True)
        _link(self._scratch / "theirs", common, ["objects"])
        (self._scratch / "objects/info/alternates").write_text("../theirs/objects\n", encoding="utf-8")

    def run(self, *arguments: str, given: bytes = b"", index: Path | None = None) -> bytes:
        """Run a git command in the temporary repository, and return the standard output.

        Args:
            arguments: git command with its arguments.
            given: standard input.
            index: index file to read. With None, git reads the index of the temporary repository.
        """
        empty = str(self._scratch / "empty")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {
            "GIT_DIR": str(self._own_git_dir),
            "GIT_INDEX_FILE": str(index or self._scratch / "index"),
            "GIT_WORK_TREE": empty,
            "HOME": empty,
            "XDG_CONFIG_HOME": empty,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": "",  # nothing is fetched
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_ALLOC_LIMIT": "1g",  # git refuses an object whose uncompressed size is larger
            "LC_ALL": "C",
        }
        command, seconds = ["git", *arguments], self._record.seconds()
        done = subprocess.run(
            command, input=given, capture_output=True, check=True, timeout=seconds, env=environment, cwd=empty
        )
        return done.stdout

    def store(self, content: bytes, oid_length: int) -> bytes:
        """Write a blob with ``content`` into the temporary repository, and return the object id of the blob."""
        hasher = new_hash(oid_length, len(content))
        hasher.update(content)
        oid: str = hasher.hexdigest()
        file = self._scratch / "objects" / oid[:2] / oid[2:]
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(zlib.compress(b"blob %d\0" % len(content) + content, 1))
        return oid.encode()


def find_checkout(directory: Path) -> tuple[Path, Path] | None:
    """Return the top folder and the git folder of the checkout around ``directory``, or None."""
    for folder in (directory, *directory.parents):
        git_dir = git_dir_of(folder)
        if git_dir is not None:
            return folder, git_dir
    return None


def git_dir_of(top: Path) -> Path | None:
    """Return the git folder of the checkout in ``top``, or None if ``top`` is not the top folder of a checkout."""
    found = top / ".git"
    if found.is_file():  # a submodule or a linked worktree
        label, _, place = _read(found).partition(b": ")
        if label != b"gitdir":
            return None
        found = top / os.fsdecode(place.rstrip(b"\r\n"))
    return found if (found / "HEAD").is_file() else None


def _link(folder: Path, place: Path, names: Iterable[str]) -> None:
    """Create a link in ``folder`` to each file or folder ``place/NAME``. Skip missing names and pipes."""
    for name in names:
        if (place / name).is_dir() or (place / name).is_file():
            (folder / name).symlink_to(place / name)


def _read(file: Path) -> bytes:
    return read_regular(file, _MAX_GIT_FILE_BYTES, follows_links=True)


def new_hash(oid_length: int, num_bytes: int) -> Any:
    """Return a hash object that computes the object id of a blob. The header of the blob is already hashed."""
    name = "sha1" if oid_length == 40 else "sha256"
    return hashlib.new(name, b"blob %d\0" % num_bytes, usedforsecurity=False)
