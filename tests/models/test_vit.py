"""Tests of `ViT`: the outputs of a classifier, and their dependence on each patch and its position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from loopwright.models import ViT


def vit(**settings: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(**{"width": 16, "num_layers": 2, "num_heads": 2, **settings})


def images(num_images: int = 6, *shape: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(num_images, *(shape or (1, 8, 8)), generator=generator),
        "label": torch.randint(10, (num_images,), generator=generator),
    }


def test_loss_accuracy_and_logits_are_returned() -> None:
    model, batch = vit().eval(), images()
    outputs = model(batch)
    assert set(outputs) == {"loss", "accuracy", "logits"}
    assert outputs["logits"].shape == (6, 10)
    assert torch.equal(outputs["loss"], functional.cross_entropy(outputs["logits"], batch["label"]))


def test_every_parameter_is_trained() -> None:
    model = vit(dropout=0.1)
    model(images(64))["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_logits_depend_on_each_patch_and_its_position() -> None:
    model, batch = vit().eval(), images(1)
    logits = model(batch)["logits"]
    for row, column in ((0, 0), (7, 7), (3, 4)):
        changed = batch["image"].clone()
        changed[0, 0, row, column] += 1
        assert not torch.equal(model({**batch, "image": changed})["logits"], logits)
    moved = batch["image"].roll(2, dims=3)  # the same patches at other positions
    assert (model({**batch, "image": moved})["logits"] - logits).abs().max() > 1e-6


def test_image_shape_patch_size_and_number_of_classes_can_be_changed() -> None:
    model = vit(in_channels=3, image_size=12, patch_size=4, num_classes=5)
    batch = images(2, 3, 12, 12)
    assert model({**batch, "label": torch.tensor([0, 4])})["logits"].shape == (2, 5)
    assert model.position_embedding.weight.shape == (9, 16)


def test_a_few_steps_reduce_the_loss() -> None:
    model, batch = vit(), images(16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    losses = []
    for _ in range(30):
        loss = model(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3  # the labels are random, so the model must distinguish the single images


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"patch_size": 3}, "patch_size=3: expected a divisor of image_size=8."),
        ({"num_heads": 5}, "num_heads=5: expected a divisor of width=16."),
        ({"in_channels": 0}, "in_channels=0: expected a whole number, 1 or more."),
        ({"num_classes": "10"}, "num_classes='10': expected a whole number, 1 or more."),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        vit(**settings)
    assert str(caught.value) == line


def test_images_of_another_shape_are_refused_with_the_setting_to_change() -> None:
    with pytest.raises(ValueError, match=r"^in_channels=1: expected 3, the number of channels of an image\.$"):
        vit()(images(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"^image_size=8: expected 4, the height and width of an image\.$"):
        vit()(images(2, 1, 4, 4))
