"""Functions that the classifiers share: they check images and labels, and compute the outputs for a batch.

Shape suffixes: B batch, C classes, I channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from loopwright.errors import SettingError, refuse
from loopwright.models.batches import not_taken

# Argument `ignore_index` of torch's cross entropy: an integer that is not expected as a label. Torch's default of -100
# would silently ignore samples with the label -100. Converting NaN to an integer does not give _NO_LABEL.
_NO_LABEL = -(2**31) + 1


def images_and_labels(batch: Mapping[str, Tensor], image_shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a batch, and check the shape of the images.

    Raises:
        SettingError: if the batch has no images and labels, or if the images do not have the shape ``image_shape``.
            If ``in_channels`` or ``image_size`` is wrong, the message names this setting and the correct value.
    """
    try:
        image_BIHW, label_B = batch["image"], batch["label"]
    except (LookupError, TypeError):
        raise not_taken(batch, "image and label") from None
    return _checked_images(image_BIHW, image_shape), label_B


def images_of(batch: Mapping[str, Tensor], image_shape: tuple[int, int, int]) -> Tensor:
    """Return the images of a batch, and check their shape. The batch needs no labels.

    Raises:
        SettingError: if the batch has no images, or if the images do not have the shape ``image_shape``.
    """
    try:
        image_BIHW = batch["image"]
    except (LookupError, TypeError):
        raise not_taken(batch, "image") from None
    return _checked_images(image_BIHW, image_shape)


def _checked_images(image_BIHW: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Return the images of a batch if they have the shape ``image_shape``; otherwise raise a `SettingError`."""
    given = tuple(image_BIHW.shape[1:])
    if given == image_shape:
        return image_BIHW
    if len(given) != len(image_shape) or given[1] != given[2]:
        problem = ": expected square images of shape channels x size x size, the data has images of shape "
        raise SettingError("model", f"{problem}{given}.")
    if given[0] != image_shape[0]:
        raise refuse("in_channels", image_shape[0], f"{given[0]}, the number of channels of an image")
    raise refuse("image_size", image_shape[1], f"{given[1]}, the height and width of an image")


def check_labels(label_B: Tensor, num_classes: int) -> None:
    """Check that each sample has one integer label in [0, ``num_classes``). The labels must be on the CPU.

    Raises:
        SettingError: if the dtype, the shape or a value of the labels is wrong.
    """
    if label_B.dtype not in (torch.int64, torch.uint8) or label_B.ndim != 1:
        given = f"labels in {label_B.dtype} of shape {tuple(label_B.shape)}"
        raise SettingError("model", f": expected one label for each sample in torch.int64, the data has {given}.")
    _cross_entropy(torch.zeros(len(label_B), num_classes), label_B)


def classify(logits_BC: Tensor, label_B: Tensor) -> dict[str, Tensor]:
    """Compute the loss and the accuracy of a batch, without waiting for the device. No label is ignored.

    Returns:
        ``loss``: mean cross entropy in nats. ``accuracy``: fraction of the samples whose label has the largest logit;
        it has the dtype of the logits. ``logits``: the logits.

    Raises:
        SettingError: if a label on the CPU is not in [0, C). On other devices, torch raises another error.
    """
    loss = _cross_entropy(logits_BC, label_B)
    return {"loss": loss, "accuracy": accuracy(logits_BC, label_B), "logits": logits_BC}


def accuracy(logits_BC: Tensor, label_B: Tensor) -> Tensor:
    """Return the fraction of the samples whose label has the largest logit, in the dtype of the logits."""
    is_correct_B = logits_BC.detach().argmax(dim=-1) == label_B
    return is_correct_B.to(logits_BC.dtype).mean()


def predict_classes(logits_BC: Tensor) -> dict[str, Tensor]:
    """Return the predictions for a batch: ``prediction``, the most likely class, and ``probability``, B x C."""
    return {"prediction": logits_BC.argmax(dim=-1), "probability": logits_BC.softmax(dim=-1)}


def _cross_entropy(logits_BC: Tensor, label_B: Tensor) -> Tensor:
    try:
        return functional.cross_entropy(logits_BC, label_B, ignore_index=_NO_LABEL)
    except IndexError:
        lowest, highest = (int(bound) for bound in label_B.aminmax())
    if lowest < 0:
        problem = f": expected labels of 0 or more, the data has labels from {lowest} to {highest}."
        raise SettingError("model", problem)
    expected = f"at least {highest + 1}, because the data has the label {highest}"
    raise refuse("num_classes", logits_BC.shape[-1], expected)
