"""`BorrowingRepository`: runs git on a checkout of unknown origin without its configuration and working tree."""

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

_SECONDS = 20.0  # for all commands of a record, and the reading of files between them
_MAX_CONTENT_BYTES = 64 << 20  # total size of the changed files whose content is recorded
_MAX_GIT_FILE_BYTES = 1 << 20  # size of a file such as .git/config

# Settings of git that say how objects, refs and files are stored. No other setting of the checkout is used.
_EXTENSIONS = re.compile(rb"^\s*(objectformat|refstorage)\s*=\s*(sha1|sha256|files|reftable)\s*$", re.I | re.M)
_NO_FILE_MODE = re.compile(rb"^\s*filemode\s*=\s*false\s*$", re.I | re.M)


@dataclass(slots=True)
class Record:
    """What the record of one checkout and its submodules may still use.

    Attributes:
        scratch: folder for temporary repositories.
        end: time at which the record is given up.
        num_bytes: number of bytes of content that may still be recorded.
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
    """A temporary repository that borrows the refs and objects of a checkout, with an empty configuration.

    A checkout may come from an untrusted source. Its configuration and attributes can name programs that git would
    run, such as ``filter.NAME.clean``, and a pipe in its working tree can block git forever. Git reads none of them
    here: its working tree is an empty folder. Nothing is fetched, and nothing is written into the checkout.

    Args:
        git_dir: folder of the checkout that contains HEAD and the index.
        record: limits, and the folder in which the repository is created.
    """

    def __init__(self, git_dir: Path, record: Record) -> None:
        self.git_dir, self._record = git_dir, record
        self._scratch = Path(mkdtemp(dir=record.scratch))
        self._own_git_dir = self._scratch
        self.has_file_mode = True  # whether permissions in the working tree can be relied on
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
        """Run git with the temporary repository, whose working tree is an empty folder, and return its output.

        Args:
            arguments: command of git with its arguments.
            given: standard input.
            index: index to read; None: the index of the temporary repository.
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
            "GIT_ALLOC_LIMIT": "1g",  # an object that expands to more is refused
            "LC_ALL": "C",
        }
        command, seconds = ["git", *arguments], self._record.seconds()
        done = subprocess.run(
            command, input=given, capture_output=True, check=True, timeout=seconds, env=environment, cwd=empty
        )
        return done.stdout

    def store(self, content: bytes, oid_length: int) -> bytes:
        """Write an object into the temporary repository, and return its id."""
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
    """Return the git folder of the checkout with the top folder ``top``, or None if it is no checkout."""
    found = top / ".git"
    if found.is_file():  # a submodule or a linked worktree
        label, _, place = _read(found).partition(b": ")
        if label != b"gitdir":
            return None
        found = top / os.fsdecode(place.rstrip(b"\r\n"))
    return found if (found / "HEAD").is_file() else None


def _link(folder: Path, place: Path, names: Iterable[str]) -> None:
    """Create a link in ``folder`` for each of the names that is a file or a folder in ``place``, and not a pipe."""
    for name in names:
        if (place / name).is_dir() or (place / name).is_file():
            (folder / name).symlink_to(place / name)


def _read(file: Path) -> bytes:
    return read_regular(file, _MAX_GIT_FILE_BYTES, follows_links=True)


def new_hash(oid_length: int, num_bytes: int) -> Any:
    """Return a hash object that computes the object id of a blob. It contains the header already."""
    name = "sha1" if oid_length == 40 else "sha256"
    return hashlib.new(name, b"blob %d\0" % num_bytes, usedforsecurity=False)
