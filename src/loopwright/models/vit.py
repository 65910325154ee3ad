"""`ViT`: a vision transformer for image classification.

Shape suffixes: B batch, I input channels, H height, W width, T patches, D model width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from loopwright.errors import check_count, refuse
from loopwright.models.batches import check_floats
from loopwright.models.classification import check_labels, classify, images_and_labels, images_of, predict_classes
from loopwright.models.transformer import Transformer, initialise


class ViT(nn.Module):
    """Classifies square images with a transformer over image patches and a linear layer on the mean of its outputs.

    ``model(batch)`` takes a mapping with the entries ``image``, of shape B x I x H x W, and ``label``, integers of
    shape B. It returns ``loss``, ``accuracy`` and ``logits``.

    Sources: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929, section 3.1. The mean
    of the outputs replaces the class token of that paper, as in L. Beyer et al., "Better plain ViT baselines for
    ImageNet-1k", arXiv 2205.01580.

    Args:
        in_channels: number of channels of an image.
        image_size: height and width of an image in pixels.
        patch_size: height and width of a patch in pixels; a divisor of ``image_size``.
        width: model width (size of the hidden vectors).
        num_layers: number of transformer blocks.
        num_heads: number of attention heads in each block; a divisor of ``width``.
        num_classes: number of classes.
        dropout: probability, in [0, 1), with which a value of the embeddings, of the attention weights, or of the
            outputs of attention and feed-forward layers is set to 0 in training.

    Raises:
        SettingError: if a setting is invalid. `forward` raises this error for a batch without images and labels, or
            with images of another shape.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int = 8,
        patch_size: int = 2,
        width: int = 64,
        num_layers: int = 4,
        num_heads: int = 4,
        num_classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        image_size, patch_size = check_count("image_size", image_size), check_count("patch_size", patch_size)
        if image_size % patch_size:
            raise refuse("patch_size", patch_size, f"a divisor of image_size={image_size}")
        self.image_shape = (check_count("in_channels", in_channels), image_size, image_size)
        self.transformer = Transformer(width, num_layers, num_heads, dropout, is_causal=False)
        self.patch_embedding = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)
        self.position_embedding = nn.Embedding((image_size // patch_size) ** 2, width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.num_classes = check_count("num_classes", num_classes)
        self.head = nn.Linear(width, self.num_classes)
        for module in (self.position_embedding, self.head):  # the convolution keeps torch's initialisation
            initialise(module, width)

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
        return classify(self._logits(image_BIHW), label_B)

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``prediction``, the most likely class of each image, and ``probability``, B x C. No label is needed.

        Raises:
            SettingError: for a batch without images, or with images of another shape.
        """
        return predict_classes(self._logits(images_of(batch, self.image_shape)))

    def _logits(self, image_BIHW: Tensor) -> Tensor:
        """Return the logits of the classes, B x C."""
        x_BTD = self.patch_embedding(image_BIHW).flatten(start_dim=2).transpose(1, 2)
        x_BTD = self.transformer(self.dropout(x_BTD + self.position_embedding.weight))
        logits_BC: Tensor = self.head(torch.mean(x_BTD, dim=1))
        return logits_BC
