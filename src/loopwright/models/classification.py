"""What the classifiers have in common: the checks of their images and labels, and what they return for a batch.

Shape suffixes: B batch, C classes, I channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from loopwright.errors import SettingError, refuse
from loopwright.models.batches import not_taken

# Torch would leave -100 out without a word. This is no label, nor what NaN or a missing value becomes as an integer.
_NO_LABEL = -(2**31) + 1


def images_and_labels(batch: Mapping[str, Tensor], image_shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """The images of a batch, which must have the shape that the model was made for, and its labels.

    Raises:
        SettingError: naming the setting to change.
    """
    try:
        image_BIHW, label_B = batch["image"], batch["label"]
    except (LookupError, TypeError):
        raise not_taken(batch, "image and label") from None
    given = tuple(image_BIHW.shape[1:])
    if given == image_shape:
        return image_BIHW, label_B
    if len(given) != len(image_shape) or given[1] != given[2]:
        raise SettingError("model", f": expected square images, channels x size x size, the data has {given}.")
    if given[0] != image_shape[0]:
        raise refuse("in_channels", image_shape[0], f"{given[0]}, the channels of an image")
    raise refuse("image_size", image_shape[1], f"{given[1]}, the height and width of an image")


def check_labels(label_B: Tensor, num_classes: int) -> None:
    """Refuse labels, on the CPU, that are no classes of a model with ``num_classes``.

    Raises:
        SettingError: as `classify`; and for labels that are not one whole number for each sample.
    """
    if label_B.dtype not in (torch.int64, torch.uint8) or label_B.ndim != 1:
        given = f"{label_B.dtype} of shape {tuple(label_B.shape)}"
        raise SettingError("model", f": expected a label for each sample in torch.int64, the data has {given}.")
    _cross_entropy(torch.zeros(len(label_B), num_classes), label_B)


def classify(logits_BC: Tensor, label_B: Tensor) -> dict[str, Tensor]:
    """Compare logits with labels, of which none is left out.

    Returns:
        ``loss``, the mean cross entropy in nats; ``accuracy``, the fraction of the batch whose largest logit is that
        of its label, in the type of the logits; ``logits``. Nothing is read back from the device.

    Raises:
        SettingError: for labels that are no class, on the CPU; other devices raise errors of their own.
    """
    loss = _cross_entropy(logits_BC, label_B)
    is_correct_B = logits_BC.detach().argmax(dim=-1) == label_B
    return {
        "loss": loss,
        "accuracy": is_correct_B.to(logits_BC.dtype).mean(),
        "logits": logits_BC,
    }


def _cross_entropy(logits_BC: Tensor, label_B: Tensor) -> Tensor:
    try:
        return functional.cross_entropy(logits_BC, label_B, ignore_index=_NO_LABEL)
    except IndexError:
        lowest, highest = (int(bound) for bound in label_B.aminmax())
    if lowest < 0:
        raise SettingError("model", f": expected labels counted from 0, the data has {lowest} to {highest}.")
    raise refuse("num_classes", logits_BC.shape[-1], f"at least {highest + 1}, as the data has label {highest}")
