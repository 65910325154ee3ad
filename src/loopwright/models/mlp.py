"""Multilayer perceptrons: `MLP` classifies images and rows of a table, `MLPRegressor` predicts numbers.

Shape suffixes: B batch, F features of one sample, C classes, T targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from loopwright.errors import SettingError, check_count
from loopwright.models.batches import check_floats, not_taken
from loopwright.models.classification import check_labels, classify
from loopwright.models.setting_checks import check_counts, check_dropout


class MLP(nn.Module):
    """Flattens an image, or takes the features of a row, and classifies it with fully connected layers.

    ``model(batch)`` takes a mapping with ``features`` or ``image``, float, and ``label``, int64; it returns
    ``loss``, ``accuracy`` and ``logits``.

    Args:
        in_features: values in one sample, over all its dimensions.
        hidden: widths of the hidden layers, each followed by a ReLU; an empty list makes a linear classifier.
        num_classes: classes.
        dropout: fraction of each hidden layer's values that are dropped in training, in [0, 1).

    Raises:
        SettingError: for counts that are none and a fraction outside [0, 1); in `forward`, for samples with another
            number of values, and a batch without samples or labels.
    """

    def __init__(
        self,
        in_features: int = 64,
        hidden: Sequence[int] = (256,),
        num_classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_features = check_count("in_features", in_features)
        self.num_classes = check_count("num_classes", num_classes)
        self.layers = _layers(self.in_features, hidden, self.num_classes, dropout)

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Refuse a batch, on the CPU, that this model cannot take; also where it has no weights yet.

        Raises:
            SettingError: as `forward`, and for labels and types with which that would fail.
        """
        features_BF, label_B = _features(batch, "label", self.in_features)
        check_floats("features", features_BF, next(self.parameters()))
        check_labels(label_B, self.num_classes)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Classify the samples of a batch and compare with its labels."""
        features_BF, label_B = _features(batch, "label", self.in_features)
        return classify(self.layers(features_BF), label_B)


class MLPRegressor(nn.Module):
    """Flattens an image, or takes the features of a row, and predicts numbers with fully connected layers.

    ``model(batch)`` takes a mapping with ``features`` or ``image``, float, and ``target``, float, B or B x T. It
    returns ``loss``, the mean squared error; ``mean_absolute_error``; and ``prediction``, in the shape of the targets.

    Args:
        in_features: values in one sample, over all its dimensions.
        hidden: widths of the hidden layers, each followed by a ReLU; an empty list makes a linear regression.
        num_targets: numbers to predict for a sample.
        dropout: fraction of each hidden layer's values that are dropped in training, in [0, 1).

    Raises:
        SettingError: for counts that are none and a fraction outside [0, 1); in `forward`, for samples or targets with
            another number of values, and a batch without them.
    """

    def __init__(
        self,
        in_features: int = 64,
        hidden: Sequence[int] = (256,),
        num_targets: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_features = check_count("in_features", in_features)
        self.num_targets = check_count("num_targets", num_targets)
        self.layers = _layers(self.in_features, hidden, self.num_targets, dropout)

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Refuse a batch, on the CPU, that this model cannot take; also where it has no weights yet.

        Raises:
            SettingError: as `forward`, and for types with which that would fail.
        """
        features_BF, target = self._taken(batch)
        weight = next(self.parameters())
        check_floats("features", features_BF, weight)
        check_floats("targets", target, weight)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict the targets of a batch and compare with them."""
        features_BF, target = self._taken(batch)
        prediction = self.layers(features_BF).reshape(target.shape)
        return {
            "loss": functional.mse_loss(prediction, target),
            "mean_absolute_error": functional.l1_loss(prediction.detach(), target),
            "prediction": prediction,
        }

    def _taken(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        features_BF, target = _features(batch, "target", self.in_features)
        num_targets = target.shape[1:].numel()
        if num_targets != self.num_targets:
            raise SettingError("num_targets", f"={self.num_targets}: expected {num_targets}, the targets of a sample.")
        return features_BF, target


def _layers(in_features: int, hidden: Sequence[int], num_outputs: int, dropout: float) -> nn.Sequential:
    widths = [in_features, *check_counts("hidden", hidden)]
    dropout = check_dropout(dropout)
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths):
        layers += [nn.Linear(width, next_width), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_outputs))


def _features(batch: Mapping[str, Tensor], answer: str, in_features: int) -> tuple[Tensor, Tensor]:
    """The samples of a batch, flattened, and what is to be answered for each."""
    try:
        sample, answers = batch["features"] if "features" in batch else batch["image"], batch[answer]
    except (LookupError, TypeError):
        raise not_taken(batch, f"features (or image) and {answer}") from None
    if not sample.ndim or sample.shape[:1] != answers.shape[:1]:
        shapes = f"{tuple(sample.shape)} and {tuple(answers.shape)}"
        raise SettingError("model", f": expected samples, and a {answer} for each, the data has the shapes {shapes}.")
    features_BF = sample.flatten(start_dim=1) if sample.ndim > 1 else sample.unsqueeze(1)
    if features_BF.shape[1] != in_features:
        raise SettingError("in_features", f"={in_features}: expected {features_BF.shape[1]}, the values in a sample.")
    return features_BF, answers
