"""`digits`: the data of scikit-learn, with the documented split."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from loopwright.data import Loader, Splits, digits


def everything(loader: Loader) -> dict[str, Tensor]:
    batch: dict[str, Tensor] = loader.dataset.__getitems__(list(range(len(loader.dataset)))).batch
    return batch


def test_every_fifth_row_of_scikit_learns_digits_is_held_out() -> None:
    from sklearn.datasets import load_digits  # takes seconds, which each process of a test run would spend

    images, labels = load_digits(return_X_y=True)
    splits = digits()
    train, val = everything(splits.train), everything(splits.val)
    rows = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    is_val = torch.arange(1797) % 5 == 0
    assert torch.equal(val["image"], rows[is_val])
    assert torch.equal(train["image"], rows[~is_val])
    assert torch.equal(val["label"], torch.tensor(labels)[is_val])
    assert (len(train["label"]), len(val["label"])) == (1437, 360)


def test_a_batch_has_the_documented_shapes_and_dtypes() -> None:
    splits = digits(batch_size=7)
    assert isinstance(splits, Splits)
    batch = next(iter(splits.train))
    assert batch["image"].shape == (7, 1, 8, 8)
    assert batch["image"].dtype == torch.float32
    assert (batch["image"].min(), batch["image"].max()) == (0, 1)
    assert (batch["label"].shape, batch["label"].dtype) == ((7,), torch.int64)


def test_training_is_shuffled_and_validation_is_not() -> None:
    splits = digits(batch_size=360)
    assert torch.equal(next(iter(splits.val))["label"], everything(splits.val)["label"])
    assert not torch.equal(next(iter(splits.train))["label"], everything(splits.train)["label"][:360])


@pytest.mark.slow
def test_reading_the_digits_does_not_import_scikit_learn() -> None:
    code = "import sys, loopwright.data as d; d.digits(); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("setting", ["batch_size", "num_workers"])
def test_invalid_counts_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}=-1: expected a whole number"):
        digits(**{setting: -1})
