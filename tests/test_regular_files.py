"""Only regular files are opened, and at most the accepted size is read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import special
from limited import limited
from loopwright.regular_files import open_regular, read_regular, replace_file

pytestmark = pytest.mark.timeout(20)


def test_the_content_of_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", 7) == b"content"
    assert read_regular(tmp_path / "link", 7, follows_links=True) == b"content"
    (tmp_path / "file").write_bytes(b"")
    assert read_regular(tmp_path / "file", 0) == b""


@pytest.mark.parametrize("follows_links", [True, False])
@pytest.mark.parametrize("kind", special.KINDS)
def test_other_files_are_refused(kind: str, follows_links: bool, tmp_path: Path) -> None:
    special.make(tmp_path / "x", kind)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "x", follows_links=follows_links)


def test_links_are_refused_unless_they_are_followed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "link")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        open_regular(tmp_path / "loop", follows_links=True)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")


def test_a_file_that_became_a_pipe_after_the_check_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    status = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda *_, **__: status)
    num_open = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "pipe")
    assert len(os.listdir("/proc/self/fd")) == num_open


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    special.make(tmp_path / "x", "holes")
    with pytest.raises(OSError, match=r"1,099,511,627,776 bytes; expected at most 10"):
        read_regular(tmp_path / "x", 10)


def test_a_small_file_is_read_and_a_larger_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    assert read_regular(file, 100) == b"x" * 100
    with pytest.raises(OSError, match="100 bytes; expected at most 99"):
        read_regular(file, 99)


@pytest.mark.parametrize("size", [1 << 27, 1 << 30, 3 << 40])
def test_a_file_of_holes_is_not_read(size: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"{}")
    os.truncate(file, size)
    with pytest.raises(OSError, match="almost none of its"):
        limited(read_regular, file, 1 << 60, timeout_seconds=10)


def test_a_file_without_a_size_yields_nothing() -> None:
    assert read_regular("/proc/self/maps", 10) == b""  # the kernel makes up the content of such a file


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    replace_file(file, b"one")
    (tmp_path / f".a.json-{os.getpid()}").write_text("left")
    replace_file(file, b"two")
    assert file.read_bytes() == b"two"
    shutil.rmtree(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        replace_file(file, b"three")
