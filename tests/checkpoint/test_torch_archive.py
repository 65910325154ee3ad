"""Files of ``torch.save`` that declare more than they contain are refused before anything is allocated."""

from __future__ import annotations

import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from limited import limited
from loopwright.checkpoint import read_torch_weights
from loopwright.errors import CheckpointError

DATA = b"\0" * 4
LARGE = 64 << 20  # bytes that a compressed entry expands to


def number(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little")


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def tensor(shape: tuple[int, ...], stride: tuple[int, ...], num_stored: int, make: str = "_rebuild_tensor_v2") -> bytes:
    """Opcodes for a float32 tensor that is a view of entry ``data/0``."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(num_stored) + b"tQ"
    sizes = [b"(" + b"".join(map(number, each)) + b"t" for each in (shape, stride)]
    rest = b"\x89ccollections\nOrderedDict\n)R"
    return f"ctorch._utils\n{make}\n".encode() + b"(" + storage + number(0) + b"".join(sizes) + rest + b"tR"


def mapping(values: Mapping[str, bytes]) -> bytes:
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in values.items()) + b"u."


def write(file: Path, pickled: bytes, data: bytes = DATA) -> Path:
    entries = {"data.pkl": pickled, "data/0": data, "version": b"3\n", "byteorder": b"little"}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return file


def one_number_expanded(file: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(1 << 40)}, file)


def one_number_in_strides(file: Path) -> None:
    write(file, mapping({"weight": tensor((1 << 20, 1 << 20), (0, 0), 1)}))


def overlapping_windows(file: Path) -> None:
    torch.save({"weight": torch.zeros(1 << 16).as_strided((1 << 15, 1 << 15), (1, 1))}, file)


def many_shifted_views(file: Path) -> None:
    stored = torch.zeros(1 << 16)
    torch.save({f"weight{i}": stored[i:] for i in range(500)}, file)


def one_tensor_under_many_names(file: Path) -> None:
    stored = torch.zeros(1 << 16)
    torch.save({f"weight{i}": stored for i in range(1000)}, file)


def shape_beyond_the_storage(file: Path) -> None:
    write(file, mapping({"weight": tensor((1 << 40,), (1,), 1)}))


def storage_beyond_the_entry(file: Path) -> None:
    write(file, mapping({"weight": tensor((1 << 40,), (1,), 1 << 40)}))


def bytes_from_a_number(file: Path) -> None:
    made = b"cbuiltins\nbytearray\n" + number(1 << 40) + b"\x85R"
    write(file, mapping({"weight": tensor((1,), (1,), 1), "extra": made}))


def tensor_from_a_number(file: Path) -> None:
    write(file, mapping({"weight": b"ctorch\nTensor\n" + number(1 << 27) + b"\x85R"}))


def sparse_tensor(file: Path) -> None:
    with torch.sparse.check_sparse_tensor_invariants():
        value = torch.sparse_coo_tensor(torch.zeros(1, 1), torch.zeros(1), (1 << 40,))
    torch.save({"weight": value}, file)


def nested_key(file: Path) -> None:
    key = b"K\x01q\x00" + b"h\x00\x86q\x00" * 60
    write(file, b"\x80\x02}(" + key + tensor((1,), (1,), 1) + b"u.")


def _directory(entries: Mapping[str, tuple[int, int, int, int, int]]) -> bytes:
    """Central directory of entries with a method, CRC, compressed size, size and position."""
    return b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, method, 0, 0, crc, packed, size, len(name), 0, 0, 0, 0, 0, at)
        + name.encode()
        for name, (method, crc, packed, size, at) in entries.items()
    )


def holes(file: Path) -> None:
    size = 3 << 30
    write(file, mapping({"weight": tensor((size // 4,), (1,), size // 4)}))
    with zipfile.ZipFile(file) as archive:
        kept = {each.filename: (0, each.CRC, each.file_size, each.file_size, each.header_offset)
                for each in archive.infolist()}  # fmt: skip
    with file.open("r+b") as opened:
        at = opened.seek(0, 2)
        opened.write(struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, size, size, 14, 0) + b"archive/data/0")
        opened.seek(size, 1)
        directory = _directory(kept | {"archive/data/0": (0, 0, size, size, at)})
        opened.write(directory + _end(len(kept), len(directory), at + 44 + size))


def _end(count: int, size: int, at: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, at, 0)


def _two_directories(file: Path, is_wide: bool) -> None:
    """Write a file with two directories of equal size. `zipfile` reads the second one, which declares no compression.

    Without ``is_wide``, `zipfile` takes the distance of the directories for the size of something in front of the
    archive. With it, the end record before the directories is the one that the locator names.
    """
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(b"\0" * LARGE) + packer.flush()
    pickled = mapping({"weight": tensor((LARGE // 4,), (1,), LARGE // 4)})
    contents = {"": b"\0" * 4096, "data.pkl": pickled, "data/0": packed, "version": b"3\n", "byteorder": b"little"}
    body, harmless, harmful = b"", {}, {}
    for name, content in contents.items():
        full, at = f"archive/{name}", len(body)
        crc, num_bytes = zlib.crc32(content), len(content)
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, crc, num_bytes, num_bytes, len(full), 0)
        body += full.encode() + content
        if name:  # the first entry is not listed
            harmless[full] = harmful[full] = (0, crc, num_bytes, num_bytes, at)
    _, _, num_bytes, _, at = harmful["archive/data/0"]
    harmful["archive/data/0"] = (8, zlib.crc32(b"\0" * LARGE), num_bytes, LARGE, at)
    count, size = len(harmful), len(_directory(harmful))
    if not is_wide:
        harmless = {name: (a, b, c, d, at - size) for name, (a, b, c, d, at) in harmless.items()}
        end = _end(count, size, len(body))
    else:
        at = len(body) + 56
        body += _wide_end(count, size, at)
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, at - 56, 1)
        end = _wide_end(count, size, at + size) + locator + _end(count, size, at)
    file.write_bytes(body + _directory(harmful) + _directory(harmless) + end)


def _wide_end(count: int, size: int, at: int) -> bytes:
    return struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at)


def directory_elsewhere(file: Path) -> None:
    _two_directories(file, is_wide=False)


def wide_directory_elsewhere(file: Path) -> None:
    _two_directories(file, is_wide=True)


def comment_with_another_end(file: Path) -> None:
    directory_elsewhere(file)
    data = bytearray(file.read_bytes())
    data[-2:] = struct.pack("<H", 30)
    file.write_bytes(bytes(data) + b"x" * 30)


VIEWS = "expected tensors that are not views of a few numbers."
FORM = "zip"  # recent versions of `zipfile` refuse some of these files themselves

ATTACKS: dict[Callable[[Path], None], str] = {
    one_number_expanded: VIEWS,
    one_number_in_strides: VIEWS,
    overlapping_windows: VIEWS,
    many_shifted_views: VIEWS,
    one_tensor_under_many_names: VIEWS,
    tensor_from_a_number: VIEWS,
    shape_beyond_the_storage: "cannot be read with weights_only=True",
    storage_beyond_the_entry: "cannot be read with weights_only=True",
    bytes_from_a_number: "builds a bytearray, whose size cannot be checked",
    sparse_tensor: "weight is a sparse_coo tensor on cpu; expected dense tensors on the CPU.",
    nested_key: "has nested values of more than 5,000,000 items",
    holes: "bytes are on the disk.",
    directory_elsewhere: FORM,
    wide_directory_elsewhere: FORM,
    comment_with_another_end: FORM,
}


def _refusal(file: Path) -> tuple[str, float]:
    start = time.process_time()
    try:
        read_torch_weights(file)
    except CheckpointError as error:
        return str(error), time.process_time() - start
    raise AssertionError("the file was accepted")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_that_declares_more_than_it_contains_is_refused_in_one_line(
    attack: Callable[[Path], None], tmp_path: Path
) -> None:
    file = tmp_path / "file.pt"
    attack(file)
    said, seconds = limited(_refusal, file, timeout_seconds=20, num_bytes=1 << 30)
    assert said.startswith(f"{file}: ") and ATTACKS[attack] in said and "\n" not in said
    assert seconds < 5


def test_shared_views_and_small_expanded_buffers_are_accepted(tmp_path: Path) -> None:
    flat, weight = torch.arange(1000.0), torch.arange(600.0).view(20, 30)
    weights = {"a": flat[:500].view(20, 25), "b": flat[500:], "mask": torch.ones(1).expand(10, 10), "turned": weight.T}
    weights |= {f"layers.{i}.weight": weight for i in range(48)}
    torch.save(weights, tmp_path / "file.pt")
    found = read_torch_weights(tmp_path / "file.pt")
    assert found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)
    with zipfile.ZipFile(tmp_path / "file.pt") as archive, zipfile.ZipFile(tmp_path / "again.pt", "w") as again:
        for entry in archive.infolist():  # stored again without the wide end records that torch writes
            again.writestr(entry.filename, archive.read(entry))
    assert read_torch_weights(tmp_path / "again.pt").keys() == weights.keys()
