"""Synthetic images: drawn from a seed of their own, as hard as asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from loopwright.data import Loader, synthetic


def everything(loader: Loader) -> dict[str, Tensor]:
    batch: dict[str, Tensor] = loader.dataset.__getitems__(list(range(len(loader.dataset)))).batch
    return batch


def draw(**settings: Any) -> dict[str, Tensor]:
    return everything(synthetic(**{"num_train": 50, "num_val": 1, **settings}).train)


def test_the_defaults_are_batches_for_the_models() -> None:
    splits = synthetic()
    batch = next(iter(splits.train))
    assert batch["image"].shape == (32, 1, 8, 8)
    assert (batch["image"].dtype, batch["label"].dtype) == (torch.float32, torch.int64)
    assert (len(splits.train), len(splits.val)) == (313, 79)


def test_shape_and_counts_are_as_asked_for() -> None:
    splits = synthetic(num_train=7, num_val=5, shape=[3, 4, 6], num_classes=2, batch_size=8)
    train, val = next(iter(splits.train)), next(iter(splits.val))
    assert (train["image"].shape, val["image"].shape) == ((7, 3, 4, 6), (5, 3, 4, 6))
    assert set(train["label"].tolist()) <= {0, 1}


def test_the_same_seed_gives_the_same_images_whatever_else_is_seeded() -> None:
    before = torch.get_rng_state()
    first = draw()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(17)
        second = draw()
    assert torch.equal(first["image"], second["image"])
    assert not torch.equal(first["image"], draw(seed=1)["image"])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (30,)])
def test_separation_is_the_distance_of_the_class_means_for_any_shape(shape: tuple[int, ...]) -> None:
    data = draw(num_train=20_000, shape=shape, num_classes=8, separation=6.0)
    means = torch.stack([data["image"][data["label"] == label].mean(dim=0).flatten() for label in range(8)])
    squared = torch.cdist(means, means).square().sum() / (8 * 7)
    assert squared.sqrt() == pytest.approx(6.0, rel=0.25)


def test_a_separation_of_six_is_nearly_learnable() -> None:
    splits = synthetic(num_train=4000, num_val=2000)
    train, val = everything(splits.train), everything(splits.val)
    means = torch.stack([train["image"][train["label"] == label].mean(dim=0).flatten() for label in range(10)])
    nearest = torch.cdist(val["image"].flatten(1), means).argmin(dim=1)
    accuracy = (nearest == val["label"]).double().mean()
    assert 0.97 < accuracy < 1.0


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"shape": []}, "shape=[]: expected at least one dimension."),
        ({"shape": "8x8"}, "shape='8x8': expected a list of whole numbers, such as [1, 8, 8]."),
        ({"shape": [1, 0]}, "shape[1]=0: expected a whole number, 1 or more."),
        ({"num_classes": True}, "num_classes=True: expected a whole number, 1 or more."),
        ({"num_val": 0}, "num_val=0: expected a whole number, 1 or more."),
        ({"separation": -1}, "separation=-1: expected a number, 0 or more."),
        ({"separation": float("nan")}, "separation=nan: expected a number, 0 or more."),
        ({"separation": "far"}, "separation='far': expected a number, 0 or more."),
        ({"seed": 1.5}, "seed=1.5: expected a whole number."),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        synthetic(**settings)
    assert str(caught.value) == line
