"""`hash_content` changes if a byte of the data set's content changes, and otherwise stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import special
from loopwright.data import ImageFolder, TensorData, TensorFile, csv, hash_content, image_folder, tensor_file
from loopwright.data.sets import content
from loopwright.errors import DataError
from photos import write_photos


@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64]))
def test_one_changed_bit_changes_the_hash(data: st.DataObject, dtype: torch.dtype) -> None:
    first = torch.arange(12).reshape(4, 3).to(dtype)
    second = torch.arange(4)
    before = hash_content(TensorData({"x": first, "y": second}))
    assert before == hash_content(TensorData({"y": second.clone(), "x": first.t().contiguous().t()}))
    values = first.clone().view(torch.uint8)
    place = data.draw(st.integers(0, values.numel() - 1))
    bit = 0 if dtype == torch.bool else data.draw(st.integers(0, 7))
    values.view(-1)[place] ^= 1 << bit
    assert hash_content(TensorData({"x": values.view(dtype), "y": second})) != before


def test_names_dtypes_and_shapes_change_the_hash() -> None:
    zeros = torch.zeros(4, 2)
    same_bytes = [{"a": zeros}, {"b": zeros}, {"a": zeros.view(torch.int32)}, {"a": zeros.reshape(8)}]
    hashes = [hash_content(TensorData(tensors)) for tensors in same_bytes]
    assert len(set(hashes)) == 4 and None not in hashes


def test_a_file_has_the_same_hash_as_its_tensors_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"x": torch.randn(20, 3), "y": torch.arange(20)}
    save_file(tensors, tmp_path / "rows.safetensors")
    dataset = TensorFile(str(tmp_path / "rows.safetensors"))
    expected = hash_content(TensorData(tensors))
    assert hash_content(dataset) == expected
    monkeypatch.setattr(content, "_PART_BYTES", 100)  # five parts
    assert hash_content(dataset) == expected


def test_training_and_validation_rows_of_a_file_have_separate_hashes(tmp_path: Path) -> None:
    def hashes() -> tuple[Any, Any]:
        np.save(tmp_path / "x.npy", values)
        splits = tensor_file({"x": str(tmp_path / "x.npy")})
        return hash_content(splits.train.dataset), hash_content(splits.val.dataset)

    values = np.arange(20)
    train, val = hashes()
    values[4] += 1  # held out
    assert hashes()[0] == train and hashes()[1] != val
    values[5] += 1
    assert hashes()[0] != train


def test_a_changed_image_file_or_label_changes_the_hash(tmp_path: Path) -> None:
    write_photos(tmp_path)
    before = hash_content(image_folder(str(tmp_path)).train.dataset)
    file = tmp_path / "cat" / "1.png"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert hash_content(image_folder(str(tmp_path)).train.dataset) not in (before, None)
    assert hash_content(ImageFolder([str(file)], [0])) != hash_content(ImageFolder([str(file)], [1]))


def test_a_set_that_is_too_large_or_of_another_class_has_no_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hash_content([1, 2]) is None
    assert hash_content(TensorData({"x": torch.eye(3).to_sparse()})) is None
    assert hash_content(csv("loopwright:wine.csv", "cultivar").train.dataset) is None
    write_photos(tmp_path)
    save_file({"x": torch.zeros(9)}, tmp_path / "rows.safetensors")
    sets = [
        TensorData({"x": torch.zeros(9)}),
        TensorFile(str(tmp_path / "rows.safetensors")),
        image_folder(str(tmp_path)).train.dataset,
    ]
    assert None not in [hash_content(each) for each in sets]
    monkeypatch.setattr(content, "MAX_HASHED_BYTES", 35)
    assert [hash_content(each) for each in sets] == [None, None, None]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", [*special.KINDS, "holes"])
def test_an_image_that_was_replaced_after_the_start_is_refused_or_not_hashed(kind: str, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    dataset = image_folder(str(tmp_path / "photos")).train.dataset
    special.make(Path(dataset.files[0]), kind)
    if kind == "holes":
        assert hash_content(dataset) is None
    else:
        with pytest.raises(DataError, match="cannot be read: not a regular file"):
            hash_content(dataset)
