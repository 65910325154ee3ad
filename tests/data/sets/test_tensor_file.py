"""`tensor_file`: rows are read as stored, files are mapped and not loaded, and wrong files are refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from loopwright.data import TensorFile, as_source, tensor_file

NPY = {"image": "image.npy", "label": "label.npy"}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write ten rows in both formats, and files with errors."""
    monkeypatch.chdir(tmp_path)
    image, label = torch.arange(60.0).reshape(10, 2, 3), torch.arange(10)
    save_file({"image": image, "label": label}, "rows.safetensors")
    np.save("image.npy", image.numpy())
    np.save("label.npy", label.numpy())
    np.save("short.npy", label[:9].numpy())
    np.save("fortran.npy", np.asfortranarray(image.numpy()))
    np.save("objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    np.save("scalar.npy", np.float32(1))
    np.save("text.npy", np.array(["a", "b"]))
    save_file({"image": image[:0]}, "none.safetensors")
    save_file({}, "hollow.safetensors")
    save_file({"image": image.double(), "label": label}, "double.safetensors")
    Path("broken.safetensors").write_bytes(Path("rows.safetensors").read_bytes()[:-4])
    Path("broken.npy").write_bytes(Path("image.npy").read_bytes()[:-4])
    Path("noise.npy").write_bytes(b"noise")


@pytest.mark.parametrize("path", ["rows.safetensors", NPY, {**NPY, "image": "fortran.npy"}], ids=str)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_rows_are_read_as_stored(path: Any, num_workers: int) -> None:
    splits = tensor_file(path, batch_size=3, num_workers=num_workers)
    assert (len(splits.train.dataset), len(splits.val.dataset)) == (8, 2)
    (val,) = as_source(splits.val, 0).read(0, 0)
    assert val["label"].tolist() == [4, 9]
    assert val["image"][1].tolist() == [[54, 55, 56], [57, 58, 59]]
    train = list(as_source(splits.train, 0).read(0, 0))
    assert sorted(int(label) for batch in train for label in batch["label"]) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert all(torch.equal(batch["image"][:, 0, 0], 6.0 * batch["label"]) for batch in train)


def test_validation_rows_can_come_from_a_second_file() -> None:
    splits = tensor_file("rows.safetensors", val_path=NPY)
    assert (len(splits.train.dataset), len(splits.val.dataset)) == (10, 10)


@pytest.mark.parametrize("place", [0, 5 * 2**20 - 1])
def test_the_recorded_hash_depends_on_the_ends_of_the_files(place: int) -> None:
    rows = np.zeros((5, 2**20), np.uint8)
    np.save("first.npy", rows)
    np.save("same.npy", rows)
    rows.flat[place] = 1
    np.save("other.npy", rows)
    first, same, other = (tensor_file({"x": f"{name}.npy"}).facts for name in ("first", "same", "other"))
    assert first == same != other
    assert tensor_file({"x": "first.npy"}, val_path={"x": "other.npy"}).facts == {
        **first,
        "val_ends_sha256": other["ends_sha256"],
    }


def test_an_index_outside_the_set_is_refused() -> None:
    data = tensor_file("rows.safetensors").val.dataset
    assert not data.is_random
    assert data[-1]["label"] == data[1]["label"] == 9
    with pytest.raises(IndexError, match="index 2 is outside a set of 2 samples"):
        data[2]


@pytest.mark.parametrize("path", ["rows.safetensors", NPY], ids=str)
def test_a_pickled_set_contains_paths_and_no_tensors(path: Any) -> None:
    data = tensor_file(path).train.dataset
    sent = pickle.dumps(data)
    assert len(sent) < 500
    assert pickle.loads(sent)[7]["label"] == 8


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_opening_a_large_file_needs_little_memory(kind: str) -> None:
    num_bytes = 200_000_000
    if kind == "npy":
        np.lib.format.open_memmap("large.npy", mode="w+", dtype=np.uint8, shape=(num_bytes // 1000, 1000)).flush()
    else:
        header = b'{"x":{"dtype":"U8","shape":[%d,1000],"data_offsets":[0,%d]}}' % (num_bytes // 1000, num_bytes)
        with open("large.safetensors", "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + num_bytes)  # a hole: uses no space on the disk
    before = resident_bytes()
    data = TensorFile("large.safetensors" if kind == "safetensors" else {"x": "large.npy"})
    assert data.__getitems__([0, 199_999]).batch["x"].shape == (2, 1000)
    assert resident_bytes() - before < num_bytes / 4


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"path": "row.safetensors"}, "path='row.safetensors': no such file. Did you mean rows.safetensors?"),
        ({"path": {"image": "imag.npy"}}, "path.image='imag.npy': no such file. Did you mean image.npy?"),
        (
            {"path": "image.npy"},
            "path='image.npy': expected a .safetensors file; for npy files write {image: a.npy, label: b.npy}.",
        ),
        (
            {"path": {"image": "rows.safetensors"}},
            "path.image='rows.safetensors': expected an .npy file; give a .safetensors file alone, without a name.",
        ),
        ({"path": 3}, "path=3: expected a .safetensors file, or a mapping of names to .npy files."),
        ({"path": {}}, "path: contains no tensors; expected at least one."),
        ({"path": "hollow.safetensors"}, "path='hollow.safetensors': contains no tensors; expected at least one."),
        ({"path": "none.safetensors"}, "path='none.safetensors': has no rows; expected at least one."),
        ({"path": "broken.safetensors"}, "path='broken.safetensors': cannot be read as a safetensors file: "),
        ({"path": {"x": "broken.npy"}}, "path.x='broken.npy': cannot be read as an npy file of numbers: "),
        ({"path": {"x": "noise.npy"}}, "path.x='noise.npy': cannot be read as an npy file of numbers: "),
        ({"path": {"x": "objects.npy"}}, "path.x='objects.npy': cannot be read as an npy file of numbers: "),
        ({"path": {"x": "text.npy"}}, "path.x='text.npy': cannot be read as an npy file of numbers: "),
        (
            {"path": {"image": "image.npy", "label": "short.npy"}},
            "path: has tensors of the shapes image (10, 2, 3), label (9,); expected the same number of rows in each.",
        ),
        (
            {"path": {"x": "scalar.npy"}},
            "path: has tensors of the shapes x (); expected the same number of rows in each.",
        ),
        (
            {"path": "rows.safetensors", "val_path": "double.safetensors"},
            "val_path: its rows are image (2, 3) torch.float64, label () torch.int64; "
            "expected the same as in path: image (2, 3) torch.float32, label () torch.int64.",
        ),
        ({"path": "rows.safetensors", "val_fraction": 0.05}, "val_fraction=0.05: expected a fraction that leaves"),
    ],
)
def test_an_error_is_reported_in_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as caught:
        tensor_file(**settings)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith("..")
