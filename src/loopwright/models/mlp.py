"""Multilayer perceptrons: `MLP` classifies images and rows of a table, `MLPRegressor` predicts numbers.

Shape suffixes: B batch, F features of one sample, C classes, T targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from loopwright.errors import SettingError, check_count
from loopwright.models.classification import classify
from loopwright.models.settings import check_counts, check_dropout


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
        self.layers = _layers(self.in_features, hidden, check_count("num_classes", num_classes), dropout)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Classify the samples of a batch and compare with its labels."""
        features_BF = _features(batch, "label", self.in_features)
        return classify(self.layers(features_BF), batch["label"])


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

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict the targets of a batch and compare with them."""
        features_BF = _features(batch, "target", self.in_features)
        target = batch["target"]
        num_targets = target[0].numel()
        if num_targets != self.num_targets:
            raise SettingError("num_targets", f"={self.num_targets}: expected {num_targets}, the targets of a sample.")
        prediction = self.layers(features_BF).reshape(target.shape)
        return {
            "loss": functional.mse_loss(prediction, target),
            "mean_absolute_error": functional.l1_loss(prediction.detach(), target),
            "prediction": prediction,
        }


def _layers(in_features: int, hidden: Sequence[int], num_outputs: int, dropout: float) -> nn.Sequential:
    widths = [in_features, *check_counts("hidden", hidden)]
    dropout = check_dropout(dropout)
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths):
        layers += [nn.Linear(width, next_width), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_outputs))


def _features(batch: Mapping[str, Tensor], answer: str, in_features: int) -> Tensor:
    sample = batch.get("features", batch.get("image"))
    if sample is None or answer not in batch:
        expected = f"expected features (or image) and {answer} in a batch"
        remedy = "; model=mlp takes a label, model=mlp_regressor a target" if {"label", "target"} & set(batch) else ""
        raise SettingError("model", f": {expected}, found {', '.join(batch)}{remedy}.")
    features_BF = sample.flatten(start_dim=1)
    if features_BF.shape[1] != in_features:
        raise SettingError("in_features", f"={in_features}: expected {features_BF.shape[1]}, the values in a sample.")
    return features_BF
