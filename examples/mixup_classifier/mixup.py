"""Handwritten digits whose training images are mixed in pairs."""

import random
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from loopwright.data import Loader, Splits, digits


def mixed_digits(batch_size: int = 32, num_workers: int = 0, alpha: float = 0.4) -> Splits:
    """Return the digits with a training dataloader that mixes the images of each batch."""
    data = digits(batch_size)
    collate = partial(mix, alpha=alpha)
    train = Loader(data.train.dataset, batch_size, shuffle=True, num_workers=num_workers, collate_fn=collate)
    return Splits(train, data.val, encoding=data.encoding)


def mix(samples: list[dict[str, Tensor]], alpha: float) -> dict[str, Any]:
    """Mix each image and its label with another image of the batch.

    The random numbers come from the global generators. Loopwright seeds these generators before each call, so the
    batches are equal after a resume and with any number of workers.

    Source: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, section 2.
    """
    image = torch.stack([sample["image"] for sample in samples])
    label = functional.one_hot(torch.stack([sample["label"] for sample in samples]), num_classes=10).float()
    share = random.betavariate(alpha, alpha)
    other = torch.randperm(len(samples))
    return {
        "image": share * image + (1 - share) * image[other],
        "label": share * label + (1 - share) * label[other],
    }
