"""`ViT`: a transformer over the patches of an image, which classifies it.

Shape suffixes: B batch, I input channels, H height, W width, T patches, D model width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from loopwright.errors import check_count, refuse
from loopwright.models.batches import check_floats
from loopwright.models.classification import check_labels, classify, images_and_labels
from loopwright.models.transformer import Transformer, initialise


class ViT(nn.Module):
    """Classifies square images: patches become vectors, read each other, and their mean is classified.

    ``model(batch)`` takes a mapping with ``image`` and ``label`` and returns ``loss``, ``accuracy`` and ``logits``.

    Sources: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929, section 3.1; the mean in place of
    a class token follows L. Beyer et al., "Better plain ViT baselines for ImageNet-1k", arXiv 2205.01580.

    Args:
        in_channels: channels of an image.
        image_size: height and width of an image in pixels.
        patch_size: height and width of a patch in pixels; divides ``image_size``.
        width: of the model.
        num_layers: blocks.
        num_heads: attention heads of a block; divides ``width``.
        num_classes: classes.
        dropout: fraction dropped in training, in [0, 1): of embeddings, attention weights, and what each block adds.

    Raises:
        SettingError: for settings that cannot be used; in `forward`, for a batch without images and labels, and
            images of another shape.
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
        for part in (self.position_embedding, self.head):  # the convolution begins as torch makes it
            initialise(part, width)

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Refuse a batch, on the CPU, that this model cannot take; also where it has no weights yet.

        Raises:
            SettingError: as `forward`, and for labels and types with which that would fail.
        """
        image_BIHW, label_B = images_and_labels(batch, self.image_shape)
        check_floats("images", image_BIHW, next(self.parameters()))
        check_labels(label_B, self.num_classes)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Classify the images of a batch and compare with its labels."""
        image_BIHW, label_B = images_and_labels(batch, self.image_shape)
        x_BTD = self.patch_embedding(image_BIHW).flatten(start_dim=2).transpose(1, 2)
        x_BTD = self.transformer(self.dropout(x_BTD + self.position_embedding.weight))
        return classify(self.head(torch.mean(x_BTD, dim=1)), label_B)
