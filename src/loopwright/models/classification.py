"""What the classifiers have in common: the check of their images, and what they return for a batch.

Shape suffixes: B batch, C classes, I channels, H height, W width.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from loopwright.errors import SettingError, refuse


def check_images(image_BIHW: Tensor, image_shape: tuple[int, int, int]) -> None:
    """Refuse images of another shape than the model was made for.

    Raises:
        SettingError: naming both shapes.
    """
    if image_BIHW.shape[1:] != image_shape:
        given = tuple(image_BIHW.shape[1:])
        raise SettingError(
            "image_size",
            f": the model takes images of {image_shape}, the data has {given}; "
            "set model.in_channels and model.image_size.",
        )


def classify(logits_BC: Tensor, label_B: Tensor) -> dict[str, Tensor]:
    """Compare logits with labels.

    Returns:
        ``loss``, the mean cross entropy in nats; ``accuracy``, the fraction of the batch whose largest logit is that
        of its label, in the type of the logits; ``logits``. Nothing is read back from the device.

    Raises:
        SettingError: for labels that are no class, on the CPU; other devices raise errors of their own.
    """
    try:
        loss = functional.cross_entropy(logits_BC, label_B)
    except IndexError:
        lowest, highest = label_B.aminmax()
        expected = f"classes for labels from {lowest.item()} to {highest.item()}, counted from 0"
        raise refuse("num_classes", logits_BC.shape[-1], expected) from None
    is_correct_B = logits_BC.detach().argmax(dim=-1) == label_B
    return {
        "loss": loss,
        "accuracy": is_correct_B.to(logits_BC.dtype).mean(),
        "logits": logits_BC,
    }
