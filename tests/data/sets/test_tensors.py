"""`TensorData`: rows are read as samples and as batches."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from loopwright.data import Loader, TensorData


def rows(num_rows: int = 5) -> TensorData:
    return TensorData({"x": torch.arange(num_rows * 2).reshape(num_rows, 2), "y": torch.arange(num_rows)})


def test_a_sample_is_a_row_of_each_tensor() -> None:
    data = rows()
    assert len(data) == 5
    assert {name: value.tolist() for name, value in data[3].items()} == {"x": [6, 7], "y": 3}


def test_a_batch_has_the_samples_in_the_requested_order() -> None:
    batch = rows().__getitems__([4, 0, 4]).batch
    assert batch["x"].tolist() == [[8, 9], [0, 1], [8, 9]]
    assert batch["y"].tolist() == [4, 0, 4]


def test_a_batch_is_a_copy() -> None:
    data = rows()
    data.__getitems__([1]).batch["y"].zero_()
    assert data[1]["y"] == 1


@pytest.mark.parametrize("loader_class", [Loader, DataLoader])
def test_our_loader_and_torchs_yield_the_same_batches(loader_class: type) -> None:
    batches = list(loader_class(rows(), batch_size=2))
    assert [batch["y"].tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert [batch["x"].shape for batch in batches] == [(2, 2), (2, 2), (1, 2)]


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        ({}, "tensors={}: expected at least one tensor."),
        ({"x": torch.zeros(2), "y": torch.zeros(3)}, "tensors with lengths {'x': 2, 'y': 3}: expected"),
        ({"x": torch.tensor(1.0)}, "tensors with lengths {'x': None}: expected the same number of rows in each."),
        ({"x": [1, 2]}, "tensors={'x': [1, 2]}: expected a mapping of names to tensors."),
        (torch.zeros(2), "tensors=tensor([0., 0.]): expected a mapping of names to tensors."),
    ],
)
def test_invalid_tensors_are_refused(tensors: object, line: str) -> None:
    with pytest.raises(ValueError, match="tensors") as caught:
        TensorData(tensors)  # type: ignore[arg-type]
    assert str(caught.value).startswith(line)
