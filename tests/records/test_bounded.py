"""Files of unknown origin are read in a bounded amount of memory, or refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from limited import limited
from loopwright.errors import CheckpointError
from loopwright.records import read_at_most, read_mapping, read_record, read_series, read_summary

TERABYTES = 3 << 40


def holes(file: Path, size: int = TERABYTES, head: bytes = b"") -> Path:
    """Write a file that has a size, but almost no bytes on the disk."""
    file.write_bytes(head)
    os.truncate(file, size)
    return file


def test_a_small_file_is_read_and_a_larger_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    assert read_at_most(file, 100) == b"x" * 100
    with pytest.raises(OSError, match="100 bytes; expected at most 99"):
        read_at_most(file, 99)


@pytest.mark.parametrize("size", [1 << 27, 1 << 30, TERABYTES])
def test_a_file_of_holes_is_not_read(size: int, tmp_path: Path) -> None:
    file = holes(tmp_path / "file", size, b"{}")
    with pytest.raises(OSError, match="almost none of its"):
        limited(read_at_most, file, 1 << 60, timeout_seconds=10)


def test_pipes_links_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for file in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), tmp_path):
        with pytest.raises(CheckpointError, match=r"cannot be read: .*; expected the file that a run recorded"):
            limited(read_record, file, timeout_seconds=10)
    assert read_record(tmp_path / "none") is None


def test_records_of_holes_are_refused_in_one_line(tmp_path: Path) -> None:
    for name, read in (("summary.json", read_summary), ("metrics.jsonl", read_series)):
        file = holes(tmp_path / name)
        with pytest.raises(CheckpointError) as caught:
            limited(read, tmp_path, timeout_seconds=10)
        assert str(caught.value).startswith(f"{file}: cannot be read: ") and "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="20,000,000 bytes; expected at most 16,777,216"):
        limited(read_mapping, holes(tmp_path / "environment.json", 20_000_000), timeout_seconds=10)
