"""Multilayer perceptrons for images and table rows: `MLP` for classification, `MLPRegressor` for regression.

Shape suffixes: B batch, F features of one sample, C classes, T targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from loopwright.errors import SettingError, check_count
from loopwright.models.batches import check_floats, not_taken
from loopwright.models.classification import check_labels, classify, predict_classes
from loopwright.models.setting_checks import check_counts, check_dropout, check_scale


class MLP(nn.Module):
    """Classifies flattened images or table rows with fully connected layers.

    ``model(batch)`` takes a mapping with ``features`` or ``image``, a floating-point tensor with B rows, and ``label``,
    an int64 tensor of shape B. It returns ``loss``, ``accuracy`` and ``logits``.

    Args:
        in_features: number of values in one sample (the product of its dimensions).
        hidden: widths of the hidden layers, each followed by a ReLU; an empty list gives a linear classifier.
        num_classes: number of classes.
        dropout: fraction of each hidden layer's values that are dropped in training, in [0, 1).

    Raises:
        SettingError: if a count is not an integer of at least 1, or ``dropout`` is outside [0, 1). `forward` raises
            this error for a batch without samples or labels, or if a sample does not have ``in_features`` values.
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
        """Check that a batch fits this model.

        The batch must be on the CPU. The model may be on the meta device.

        Raises:
            SettingError: in the same cases as `forward`, and if the dtypes or the labels would make `forward` fail.
        """
        features_BF, label_B = _features(batch, "label", self.in_features)
        check_floats("features", features_BF, next(self.parameters()))
        check_labels(label_B, self.num_classes)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Classify the samples of a batch and compute the loss and the accuracy."""
        features_BF, label_B = _features(batch, "label", self.in_features)
        return classify(self.layers(features_BF), label_B)

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``prediction``, the most likely class of each sample, and ``probability``, B x C. No label is needed.

        Raises:
            SettingError: for a batch without samples, or if a sample does not have ``in_features`` values.
        """
        return predict_classes(self.layers(_samples(batch, self.in_features)))


class MLPRegressor(nn.Module):
    """Predicts numbers from flattened images or table rows with fully connected layers.

    ``model(batch)`` takes a mapping with ``features`` or ``image``, a floating-point tensor with B rows, and
    ``target``, a floating-point tensor of shape B or B x T. It returns ``loss``, the mean squared error;
    ``mean_absolute_error``, in the unit of the target before it was standardised; and ``prediction``, which has the
    shape of ``target``.

    Args:
        in_features: number of values in one sample (the product of its dimensions).
        hidden: widths of the hidden layers, each followed by a ReLU; an empty list gives a linear regression.
        num_targets: number of values to predict for a sample.
        target_deviation: number by which the targets were divided to standardise them. ``mean_absolute_error`` is
            multiplied by this number; ``loss`` and ``prediction`` are not.
        dropout: fraction of each hidden layer's values that are dropped in training, in [0, 1).

    Raises:
        SettingError: if a count is not an integer of at least 1, ``dropout`` is outside [0, 1), or ``target_deviation``
            is not a finite number above 0. `forward` raises this error for a batch without samples or targets, if a
            sample does not have ``in_features`` values, or if a target does not have ``num_targets`` values.
    """

    def __init__(
        self,
        in_features: int = 64,
        hidden: Sequence[int] = (256,),
        num_targets: int = 1,
        dropout: float = 0.0,
        target_deviation: float = 1.0,
    ) -> None:
        super().__init__()
        self.in_features = check_count("in_features", in_features)
        self.num_targets = check_count("num_targets", num_targets)
        self.target_deviation = check_scale("target_deviation", target_deviation)
        self.layers = _layers(self.in_features, hidden, self.num_targets, dropout)

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Check that a batch fits this model.

        The batch must be on the CPU. The model may be on the meta device.

        Raises:
            SettingError: in the same cases as `forward`, and if the dtypes would make `forward` fail.
        """
        features_BF, target = self._features_and_targets(batch)
        weight = next(self.parameters())
        check_floats("features", features_BF, weight)
        check_floats("targets", target, weight)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict the targets of a batch, and compute the loss and the mean absolute error."""
        features_BF, target = self._features_and_targets(batch)
        prediction = self.layers(features_BF).reshape(target.shape)
        return {
            "loss": functional.mse_loss(prediction, target),
            "mean_absolute_error": functional.l1_loss(prediction.detach(), target) * self.target_deviation,
            "prediction": prediction,
        }

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``prediction``, of shape B, or B x T for several targets. No target is needed.

        Raises:
            SettingError: for a batch without samples, or if a sample does not have ``in_features`` values.
        """
        prediction_BT = self.layers(_samples(batch, self.in_features))
        return {"prediction": prediction_BT.squeeze(1) if self.num_targets == 1 else prediction_BT}

    def _features_and_targets(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        features_BF, target = _features(batch, "target", self.in_features)
        num_targets = target.shape[1:].numel()
        if num_targets != self.num_targets:
            problem = f"={self.num_targets}: expected {num_targets}, the number of targets of a sample."
            raise SettingError("num_targets", problem)
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
    """Return the flattened samples of a batch, and the values of ``answer`` ("label" or "target")."""
    try:
        sample, answers = batch["features"] if "features" in batch else batch["image"], batch[answer]
    except (LookupError, TypeError):
        raise not_taken(batch, f"features (or image) and {answer}") from None
    if not sample.ndim or sample.shape[:1] != answers.shape[:1]:
        shapes = f"samples of shape {tuple(sample.shape)} and {answer}s of shape {tuple(answers.shape)}"
        raise SettingError("model", f": expected one {answer} for each sample, the data has {shapes}.")
    return _flattened(sample, in_features), answers


def _samples(batch: Mapping[str, Tensor], in_features: int) -> Tensor:
    """Return the flattened samples of a batch, which needs no labels or targets."""
    try:
        sample = batch["features"] if "features" in batch else batch["image"]
    except (LookupError, TypeError):
        raise not_taken(batch, "features (or image)") from None
    return _flattened(sample, in_features)


def _flattened(sample: Tensor, in_features: int) -> Tensor:
    """Return the samples as rows of ``in_features`` values."""
    features_BF = sample.flatten(start_dim=1) if sample.ndim > 1 else sample.unsqueeze(1)
    if features_BF.shape[1] != in_features:
        problem = f"={in_features}: expected {features_BF.shape[1]}, the number of values in a sample."
        raise SettingError("in_features", problem)
    return features_BF
