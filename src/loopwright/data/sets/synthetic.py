"""Synthetic data sets of any size: images, regression rows and token sequences.

Each sample is computed from its index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loopwright.data.reading.loader import Loader
from loopwright.data.sets.formula import Formula, fractions, make_set, normal_numbers, whole_numbers, words
from loopwright.data.sets.splits import Splits
from loopwright.errors import check_count, refuse, refuse_type


def synthetic(
    batch_size: int = 32,
    num_workers: int = 0,
    num_train: int = 10_000,
    num_val: int = 2_500,
    shape: Sequence[int] = (1, 8, 8),
    num_classes: int = 10,
    separation: float = 6.0,
    seed: int = 0,
) -> Splits:
    """Create images that are normally distributed around one mean image per class.

    Each image is computed from (seed, index). Equal arguments therefore give equal data. A data set of more than 2**24
    values is computed while it is read, and is not kept in memory. A batch is a dict with two entries: ``image``, a
    float32 tensor of shape (batch, *shape), and ``label``, an int64 tensor of shape (batch,).

    Args:
        batch_size: number of images in a micro-batch, and in a validation batch.
        num_workers: number of dataloader worker processes; 0: the main process reads.
        num_train: number of training images.
        num_val: number of validation images. They have the same distribution as the training images, and their
            indices follow the indices of the training images.
        shape: shape of one image: (channels, height, width), or any other shape that the model accepts.
        num_classes: number of classes, which are equally likely.
        separation: root-mean-square distance between the means of two classes, in standard deviations of the noise.
            The difficulty does not depend on the shape. With 3, classification is hard; with 6, the best model
            misclassifies about one image in a hundred; with 12, almost no image.
        seed: seed of the data.

    Raises:
        SettingError: for invalid counts, an empty shape, or a separation that is negative or not finite.
    """
    shape = _check_shape(shape)
    num_classes = check_count("num_classes", num_classes)
    separation = _check_amount("separation", separation)
    seed = _check_seed(seed)
    # Each value in an image adds 2 * scale**2 to the expected squared distance between two means.
    num_values = math.prod(shape)
    scale = separation / math.sqrt(2 * num_values)
    mean = scale * normal_numbers(seed, "mean", torch.arange(num_classes), num_values)
    encoding = {
        "data": "synthetic",
        "image": {"shape": list(shape)},
        "target": {"name": "label", "kind": "category", "num_classes": num_classes},
    }
    return _splits(_Images(mean, shape, seed), num_values, num_train, num_val, batch_size, num_workers, encoding)


def synthetic_regression(
    batch_size: int = 32,
    num_workers: int = 0,
    num_train: int = 10_000,
    num_val: int = 2_500,
    num_features: int = 16,
    noise: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Create rows whose target is a weighted sum of the features plus noise, so that the lowest loss is known.

    A batch is a dict with two entries: ``features``, a float32 tensor of shape (batch, num_features) with standard
    normal values, and ``target``, a float32 tensor of shape (batch,). The best model is linear, with the weights of
    `regression_weights`. Its expected mean squared error is noise**2. A model that always predicts zero has an expected
    error of 1 + noise**2.

    Args:
        batch_size: number of rows in a micro-batch, and in a validation batch.
        num_workers: number of dataloader worker processes; 0: the main process reads.
        num_train: number of training rows.
        num_val: number of validation rows. They have the same distribution as the training rows, and their indices
            follow the indices of the training rows.
        num_features: number of features in a row.
        noise: standard deviation of the noise in the targets.
        seed: seed of the data.

    Raises:
        SettingError: for invalid counts, or noise that is negative or not finite.
    """
    weight = regression_weights(num_features, seed)
    formula = _Regression(weight, _check_amount("noise", noise), seed)
    encoding = {
        "data": "synthetic_regression",
        "features": {"num_features": len(weight)},
        "target": {"name": "target", "kind": "number", "mean": 0.0, "deviation": 1.0, "unit": "target"},
    }
    return _splits(formula, len(weight) + 1, num_train, num_val, batch_size, num_workers, encoding)


def regression_weights(num_features: int = 16, seed: int = 0) -> Tensor:
    """Return the weights of the target in `synthetic_regression`, float64, of shape (num_features,). There is no bias.

    Raises:
        SettingError: for an invalid number of features, or a seed that is not an integer.
    """
    num_features = check_count("num_features", num_features)
    weight = normal_numbers(_check_seed(seed), "weight", torch.arange(1), num_features)[0].double()
    # Weights are multiples of 2**-16, and features are multiples of 2**-12. Sums of their products have no rounding
    # error in float64. A target therefore does not depend on the batch in which it is computed.
    rounded: Tensor = (weight / weight.square().sum().sqrt() * 2**16).round() / 2**16
    return rounded


def synthetic_tokens(
    batch_size: int = 32,
    num_workers: int = 0,
    num_train: int = 10_000,
    num_val: int = 1_000,
    num_tokens: int = 64,
    vocab_size: int = 64,
    noise: float = 0.25,
    seed: int = 0,
) -> Splits:
    """Create sequences in which each token is the previous token plus 1, except for noise. The lowest loss is known.

    A batch is a dict with one entry, ``tokens``, an int64 tensor of shape (batch, num_tokens + 1): the input tokens,
    followed by the target of the last input token. Token *t* is followed by *t* + 1. The last token of
    the vocabulary is followed by 0. With probability ``noise``, a token is followed by a random token instead; all
    tokens are equally likely. The lowest
    possible loss is `token_entropy` nats per token.

    Args:
        batch_size: number of sequences in a micro-batch, and in a validation batch.
        num_workers: number of dataloader worker processes; 0: the main process reads.
        num_train: number of training sequences.
        num_val: number of validation sequences, whose indices come after the indices of the training sequences.
        num_tokens: number of targets in a sequence.
        vocab_size: number of different tokens.
        noise: fraction of tokens that are drawn at random, in [0, 1].
        seed: seed of the data.

    Raises:
        SettingError: for invalid counts, or noise outside [0, 1].
    """
    num_tokens, vocab_size = check_count("num_tokens", num_tokens), check_count("vocab_size", vocab_size)
    formula = _Tokens(num_tokens, vocab_size, _check_noise(noise), _check_seed(seed))
    encoding = {"data": "synthetic_tokens", "tokens": {"vocab_size": vocab_size}}
    return _splits(formula, num_tokens + 1, num_train, num_val, batch_size, num_workers, encoding)


def token_entropy(vocab_size: int = 64, noise: float = 0.25) -> float:
    """Return the lowest expected loss that a model can reach on `synthetic_tokens`, in nats per token."""
    other = _check_noise(noise) / check_count("vocab_size", vocab_size)
    follows = 1 - noise + other
    return -sum(weight * p * math.log(p) for weight, p in ((1, follows), (vocab_size - 1, other)) if p > 0)


# Formulas that compute samples from their indices. Shape suffixes: B samples, F features, S = num_tokens + 1.


@dataclass(frozen=True, slots=True)
class _Images:
    mean: Tensor
    shape: tuple[int, ...]
    seed: int

    def __call__(self, indices_B: Tensor) -> dict[str, Tensor]:
        label_B = whole_numbers(words(self.seed, "label", indices_B, 1)[:, 0], len(self.mean))
        noise = normal_numbers(self.seed, "image", indices_B, self.mean.shape[1])
        return {"image": (self.mean[label_B] + noise).reshape(-1, *self.shape), "label": label_B}


@dataclass(frozen=True, slots=True)
class _Regression:
    weight_F: Tensor
    noise: float
    seed: int

    def __call__(self, indices_B: Tensor) -> dict[str, Tensor]:
        features_BF = normal_numbers(self.seed, "features", indices_B, len(self.weight_F))
        exact_B = (features_BF.double() @ self.weight_F).float()
        noise_B = self.noise * normal_numbers(self.seed, "noise", indices_B, 1)[:, 0]
        return {"features": features_BF, "target": exact_B + noise_B}


@dataclass(frozen=True, slots=True)
class _Tokens:
    num_tokens: int
    vocab_size: int
    noise: float
    seed: int

    def __call__(self, indices_B: Tensor) -> dict[str, Tensor]:
        num_places = self.num_tokens + 1
        drawn_BS = words(self.seed, "tokens", indices_B, num_places)
        fresh_BS = whole_numbers(drawn_BS, self.vocab_size)
        is_fresh_BS = fractions(words(self.seed, "noise", indices_B, num_places)) < self.noise
        is_fresh_BS[:, 0] = True
        place_S = torch.arange(num_places)
        # For each position, the position of the latest random token. Tokens count up from the latest random token.
        last_BS = torch.where(is_fresh_BS, place_S, 0).cummax(dim=1).values
        return {"tokens": (fresh_BS.gather(1, last_BS) + place_S - last_BS) % self.vocab_size}


def _splits(
    formula: Formula,
    num_values: int,
    num_train: int,
    num_val: int,
    batch_size: int,
    num_workers: int,
    encoding: Mapping[str, Any],
) -> Splits:
    num_train, num_val = check_count("num_train", num_train), check_count("num_val", num_val)
    if num_train + num_val >= 2**63:
        raise refuse("num_train", num_train, f"num_train + num_val below 2**63; num_val is {num_val}")
    train = make_set(num_train, formula, 0, num_values)
    val = make_set(num_val, formula, num_train, num_values)
    return Splits(
        train=Loader(train, batch_size=batch_size, shuffle=True, num_workers=num_workers),
        val=Loader(val, batch_size=batch_size, num_workers=num_workers),
        encoding=encoding,
    )


def _check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise refuse_type("shape", shape, "a list of whole numbers, such as [1, 8, 8]")
    if not shape:
        raise refuse("shape", shape, "at least one dimension")
    return tuple(check_count(f"shape[{index}]", size) for index, size in enumerate(shape))


def _check_amount(setting: str, value: float, limit: float = math.inf) -> float:
    expected = "a finite number, 0 or more" if limit == math.inf else "a fraction in [0, 1]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse_type(setting, value, expected)
    if not (0 <= value < math.inf and value <= limit):
        raise refuse(setting, value, expected)
    return float(value)


def _check_noise(noise: float) -> float:
    return _check_amount("noise", noise, limit=1.0)


def _check_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise refuse_type("seed", seed, "a whole number")
    return seed
