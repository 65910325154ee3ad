"""`synthetic`: a classification task of any size, drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from loopwright.data.loader import Loader
from loopwright.data.splits import Splits
from loopwright.data.tensors import TensorData
from loopwright.errors import check_count, refuse, refuse_type


def synthetic(
    batch_size: int = 32,
    num_workers: int = 0,
    num_train: int = 10_000,
    num_val: int = 2_500,
    shape: Sequence[int] = (1, 8, 8),
    num_classes: int = 10,
    separation: float = 6.0,
    seed: int = 0,
) -> Splits:
    """Draw images that are normally distributed around one mean image per class.

    The numbers come from a generator of their own: the same arguments give the same data, whatever else is
    seeded. A batch is a mapping: ``image``, float32, batch x shape; ``label``, int64, batch.

    Args:
        batch_size: images in a micro-batch, and in a validation batch.
        num_workers: processes that read ahead; 0 reads in this one.
        num_train: training images.
        num_val: validation images, drawn after the training images from the same distribution.
        shape: of one image: channels, height, width. Any other shape will do for models that take it.
        num_classes: classes, all equally likely.
        separation: distance between the means of two classes, root mean square, in standard deviations of the noise.
            It means the same for any shape: 3 is hard, 6 leaves about one error in a hundred images, 12 none.
        seed: of the data.

    Raises:
        SettingError: for counts that are none, an empty shape, a separation that is negative or not finite.
    """
    shape = _check_shape(shape)
    num_classes = check_count("num_classes", num_classes)
    num_train, num_val = check_count("num_train", num_train), check_count("num_val", num_val)
    if isinstance(separation, bool) or not isinstance(separation, int | float):
        raise refuse_type("separation", separation, "a number, 0 or more")
    if not 0 <= separation < math.inf:
        raise refuse("separation", separation, "a number, 0 or more")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise refuse_type("seed", seed, "a whole number")

    generator = torch.Generator().manual_seed(seed)
    # The squared distance of two means is 2 * scale**2 in expectation for each of their entries.
    scale = separation / math.sqrt(2 * math.prod(shape))
    mean = scale * torch.randn(num_classes, *shape, generator=generator)
    sets = []
    for num_images in (num_train, num_val):
        label = torch.randint(num_classes, (num_images,), generator=generator)
        image = mean[label] + torch.randn(num_images, *shape, generator=generator)
        sets.append(TensorData({"image": image, "label": label}))
    train, val = sets
    return Splits(
        train=Loader(train, batch_size=batch_size, shuffle=True, num_workers=num_workers),
        val=Loader(val, batch_size=batch_size, num_workers=num_workers),
    )


def _check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise refuse_type("shape", shape, "a list of whole numbers, such as [1, 8, 8]")
    if not shape:
        raise refuse("shape", shape, "at least one dimension")
    return tuple(check_count(f"shape[{index}]", size) for index, size in enumerate(shape))
