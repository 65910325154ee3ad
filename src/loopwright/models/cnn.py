"""`CNN`: a small convolutional network for image classification.

Shape suffixes: B batch, I input channels, H height, W width, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from loopwright.errors import check_count, refuse
from loopwright.models.batches import check_floats
from loopwright.models.classification import check_labels, classify, images_and_labels, images_of, predict_classes
from loopwright.models.setting_checks import check_counts, check_dropout


class CNN(nn.Module):
    """Classifies square images with 3 x 3 convolutions. Pooling after each convolution halves the height and width.

    ``model(batch)`` takes a mapping with the entries ``image``, of shape B x I x H x W, and ``label``, integers of
    shape B. It returns ``loss``, ``accuracy`` and ``logits``.

    Args:
        in_channels: number of channels of an image.
        channels: list with the number of output channels of each convolution. A ReLU and 2 x 2 max pooling follow each
            convolution.
        image_size: height and width of an image in pixels; at least one pixel must remain after the last pooling.
        num_classes: number of classes.
        dropout: fraction of the last layer's inputs that are dropped in training, in [0, 1).

    Raises:
        SettingError: if a count is not an integer of at least 1, ``channels`` is empty, the image is too small, or
            ``dropout`` is outside [0, 1). `forward` raises this error for a batch without images and labels, or with
            images of another shape.
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32),
        image_size: int = 8,
        num_classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        image_size = check_count("image_size", image_size)
        self.image_shape = (check_count("in_channels", in_channels), image_size, image_size)
        widths = [self.image_shape[0], *check_counts("channels", channels)]
        dropout = check_dropout(dropout)
        num_poolings = len(widths) - 1
        last_size = image_size >> num_poolings
        if num_poolings < 1:
            raise refuse("channels", channels, "at least one convolution")
        if last_size < 1:
            raise refuse("image_size", image_size, f"at least {2**num_poolings} pixels for {num_poolings} poolings")
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += [nn.Conv2d(width, next_width, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        layers.append(nn.Flatten())
        if dropout:
            layers.append(nn.Dropout(dropout))
        num_features = widths[-1] * last_size**2
        self.num_classes = check_count("num_classes", num_classes)
        self.layers = nn.Sequential(*layers, nn.Linear(num_features, self.num_classes))

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Check that a batch fits this model.

        The batch must be on the CPU. The model may be on the meta device.

        Raises:
            SettingError: in the same cases as `forward`, and if the dtypes or the labels would make `forward` fail.
        """
        image_BIHW, label_B = images_and_labels(batch, self.image_shape)
        check_floats("images", image_BIHW, next(self.parameters()))
        check_labels(label_B, self.num_classes)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Classify the images of a batch and compute the loss and the accuracy."""
        image_BIHW, label_B = images_and_labels(batch, self.image_shape)
        return classify(self.layers(image_BIHW), label_B)

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``prediction``, the most likely class of each image, and ``probability``, B x C. No label is needed.

        Raises:
            SettingError: for a batch without images, or with images of another shape.
        """
        return predict_classes(self.layers(images_of(batch, self.image_shape)))
