"""`MLP`: a multilayer perceptron that classifies images.

Shape suffixes: B batch, F features of one image, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from loopwright.errors import SettingError, check_count
from loopwright.models.classification import classify
from loopwright.models.settings import check_counts, check_dropout


class MLP(nn.Module):
    """Flattens an image and classifies it with fully connected layers.

    ``model(batch)`` takes a mapping with ``image`` and ``label`` and returns ``loss``, ``accuracy`` and ``logits``.

    Args:
        in_features: values in one image, over all its dimensions.
        hidden: widths of the hidden layers, each followed by a ReLU; an empty list makes a linear classifier.
        num_classes: classes.
        dropout: fraction of each hidden layer's values that are dropped in training, in [0, 1).

    Raises:
        SettingError: for counts that are none and a fraction outside [0, 1); in `forward`, for images with another
            number of values.
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
        widths = [self.in_features, *check_counts("hidden", hidden)]
        dropout = check_dropout(dropout)
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], check_count("num_classes", num_classes)))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Classify the images of a batch and compare with its labels."""
        image_BF = batch["image"].flatten(start_dim=1)
        if image_BF.shape[1] != self.in_features:
            raise SettingError(
                "in_features", f"={self.in_features}: expected {image_BF.shape[1]}, the values in an image."
            )
        return classify(self.layers(image_BF), batch["label"])
