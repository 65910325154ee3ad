"""Synthetic data: they depend on their own seed only, and have the requested difficulty and the known lowest loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from loopwright.data import Loader, synthetic, synthetic_regression, synthetic_tokens
from loopwright.data.sets.synthetic import regression_weights, token_entropy


def everything(loader: Loader) -> dict[str, Tensor]:
    batch: dict[str, Tensor] = loader.dataset.__getitems__(list(range(len(loader.dataset)))).batch
    return batch


def draw(**settings: Any) -> dict[str, Tensor]:
    return everything(synthetic(**{"num_train": 50, "num_val": 1, **settings}).train)


def test_the_defaults_have_the_documented_shapes() -> None:
    splits = synthetic()
    batch = next(iter(splits.train))
    assert batch["image"].shape == (32, 1, 8, 8)
    assert (batch["image"].dtype, batch["label"].dtype) == (torch.float32, torch.int64)
    assert (len(splits.train), len(splits.val)) == (313, 79)


def test_shape_and_counts_are_as_requested() -> None:
    splits = synthetic(num_train=7, num_val=5, shape=[3, 4, 6], num_classes=2, batch_size=8)
    train, val = next(iter(splits.train)), next(iter(splits.val))
    assert (train["image"].shape, val["image"].shape) == ((7, 3, 4, 6), (5, 3, 4, 6))
    assert set(train["label"].tolist()) <= {0, 1}


def test_images_depend_only_on_the_seed_argument() -> None:
    before = torch.get_rng_state()
    first = draw()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(17)
        second = draw()
    assert torch.equal(first["image"], second["image"])
    assert not torch.equal(first["image"], draw(seed=1)["image"])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (30,)])
def test_separation_is_the_distance_between_class_means_for_any_shape(shape: tuple[int, ...]) -> None:
    data = draw(num_train=20_000, shape=shape, num_classes=8, separation=6.0)
    means = torch.stack([data["image"][data["label"] == label].mean(dim=0).flatten() for label in range(8)])
    squared = torch.cdist(means, means).square().sum() / (8 * 7)
    assert squared.sqrt() == pytest.approx(6.0, rel=0.25)


def test_a_separation_of_six_leaves_few_errors() -> None:
    splits = synthetic(num_train=4000, num_val=2000)
    train, val = everything(splits.train), everything(splits.val)
    means = torch.stack([train["image"][train["label"] == label].mean(dim=0).flatten() for label in range(10)])
    nearest = torch.cdist(val["image"].flatten(1), means).argmin(dim=1)
    accuracy = (nearest == val["label"]).double().mean()
    assert 0.97 < accuracy < 1.0


def test_the_best_regression_has_the_known_weights_and_loss() -> None:
    splits = synthetic_regression(num_train=20_000, num_val=20_000, num_features=5, noise=0.5, seed=3)
    train, val = everything(splits.train), everything(splits.val)
    weight = regression_weights(5, seed=3)
    assert weight.norm() == pytest.approx(1, abs=1e-3)
    fitted = torch.linalg.lstsq(train["features"].double(), train["target"].double()[:, None]).solution[:, 0]
    assert (fitted - weight).abs().max() < 0.02
    loss = (val["features"].double() @ weight - val["target"]).square().mean()
    assert loss.item() == pytest.approx(0.25, rel=0.05)
    assert val["target"].square().mean().item() == pytest.approx(1.25, rel=0.05)


def test_a_set_may_have_as_many_samples_as_int64_has_indices() -> None:
    splits = synthetic_regression(num_train=2**63 - 2, num_val=1)
    assert next(iter(splits.train))["features"].isfinite().all()
    assert len(next(iter(splits.val))["target"]) == 1


def test_a_regression_without_noise_is_exact() -> None:
    data = everything(synthetic_regression(num_train=100, noise=0).train)
    exact = data["features"].double() @ regression_weights()
    assert torch.equal(data["target"], exact.float())
    assert (data["features"].shape, data["target"].shape) == ((100, 16), (100,))


@pytest.mark.parametrize("noise", [0.0, 0.25, 1.0])
def test_tokens_follow_their_rule_with_the_known_entropy(noise: float) -> None:
    tokens = everything(synthetic_tokens(num_train=2000, vocab_size=8, noise=noise).train)["tokens"]
    assert (tokens.shape, tokens.dtype) == ((2000, 65), torch.int64)
    step = (tokens[:, 1:] - tokens[:, :-1]) % 8
    counts = step.flatten().bincount(minlength=8).double() / step.numel()
    expected = torch.full((8,), noise / 8, dtype=torch.float64)
    expected[1] += 1 - noise
    assert (counts - expected).abs().max() < 0.005
    entropy = torch.special.entr(counts).sum().item()
    assert entropy == pytest.approx(token_entropy(8, noise), abs=0.01)


def test_the_entropy_of_random_tokens_is_the_log_of_the_vocabulary_size() -> None:
    assert token_entropy(6, 1.0) == pytest.approx(math.log(6))
    assert token_entropy(6, 0.0) == 0
    assert token_entropy() == pytest.approx(1.578, abs=0.001)  # the number in conf/data/synthetic_tokens.yaml


@pytest.mark.parametrize(
    ("make", "settings", "line"),
    [
        (synthetic, {"shape": []}, "shape=[]: expected at least one dimension."),
        (synthetic, {"shape": "8x8"}, "shape='8x8': expected a list of whole numbers, such as [1, 8, 8]."),
        (synthetic, {"shape": [1, 0]}, "shape[1]=0: expected a whole number, 1 or more."),
        (synthetic, {"num_classes": True}, "num_classes=True: expected a whole number, 1 or more."),
        (synthetic, {"num_val": 0}, "num_val=0: expected a whole number, 1 or more."),
        (
            synthetic,
            {"num_train": 10**19},
            f"num_train={10**19}: expected num_train + num_val below 2**63; num_val is 2500.",
        ),
        (
            synthetic,
            {"num_train": 1, "num_val": 2**63},
            f"num_train=1: expected num_train + num_val below 2**63; num_val is {2**63}.",
        ),
        (synthetic, {"separation": -1}, "separation=-1: expected a finite number, 0 or more."),
        (synthetic, {"separation": float("nan")}, "separation=nan: expected a finite number, 0 or more."),
        (synthetic, {"separation": "far"}, "separation='far': expected a finite number, 0 or more."),
        (synthetic, {"seed": 1.5}, "seed=1.5: expected a whole number."),
        (synthetic_regression, {"num_features": 0}, "num_features=0: expected a whole number, 1 or more."),
        (synthetic_regression, {"noise": math.inf}, "noise=inf: expected a finite number, 0 or more."),
        (synthetic_tokens, {"noise": 1.5}, "noise=1.5: expected a fraction in [0, 1]."),
        (synthetic_tokens, {"vocab_size": 0}, "vocab_size=0: expected a whole number, 1 or more."),
    ],
)
def test_invalid_settings_are_refused(make: Any, settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        make(**settings)
    assert str(caught.value) == line
