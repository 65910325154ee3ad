"""The error for a sample that cannot be read names its data set, index and worker."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from loopwright.data import Loader, as_source
from loopwright.errors import DataError


class Broken:
    """A data set in which ``row`` cannot be read or, if ``ragged``, row 3 is shorter than the others."""

    def __init__(self, ragged: bool = False, row: int = 5) -> None:
        self.ragged = ragged
        self.row = row

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        if index == self.row and not self.ragged:
            raise KeyError("no such row")
        return torch.zeros(2 if self.ragged and index == 3 else 4)


class BrokenMany(Broken):
    is_random = False

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        return [self[index] for index in indices]


@pytest.mark.parametrize("kind", [Loader, DataLoader])
@pytest.mark.parametrize(
    ("row", "num_workers", "where"), [(0, 0, ""), (5, 0, ""), (7, 0, ""), (5, 1, r" \(worker 0\)")]
)
def test_the_error_for_a_broken_sample_names_it(kind: Any, row: int, num_workers: int, where: str) -> None:
    source = as_source(kind(Broken(row=row), batch_size=2, num_workers=num_workers), 0)
    said = f"^Broken: sample {row} cannot be read{where}: KeyError: 'no such row'$"
    with pytest.raises(DataError, match=said) as caught:
        list(source.read(0, 0))
    assert caught.value.__cause__ is not None and "no such row" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("num_workers", "why"),
    [(0, ": RuntimeError: stack expects"), (1, r" \(worker 0\): their tensors differ in shape$")],
)
def test_the_error_for_samples_of_different_shapes_names_them(num_workers: int, why: str) -> None:
    source = as_source(Loader(Broken(ragged=True), batch_size=4, num_workers=num_workers), 0)
    with pytest.raises(DataError, match=f"^Broken: samples 0, 1, 2, 3 cannot be collated{why}"):
        list(source.read(0, 0))


def test_the_error_for_samples_read_together_names_all_of_them() -> None:
    source = as_source(Loader(BrokenMany(), batch_size=8), 0)
    with pytest.raises(DataError, match=r"^BrokenMany: samples 0, 1, 2, 3, … \(8 in all\) cannot be read"):
        list(source.read(0, 0))


def test_an_error_without_a_message_is_reported_by_its_class() -> None:
    class Mute(Broken):
        def __getitem__(self, index: int) -> Tensor:
            raise ValueError

    with pytest.raises(DataError, match=r"^Mute: sample 0 cannot be read: ValueError$"):
        list(as_source(Loader(Mute(), batch_size=2), 0).read(0, 0))
