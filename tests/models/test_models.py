"""Tests of `MLP` and `CNN` as classifiers, and of the errors for invalid settings and data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from loopwright.models import CNN, MLP

MODELS = {
    "mlp": lambda: MLP(hidden=[16]),
    "linear": lambda: MLP(hidden=[]),
    "deep mlp": lambda: MLP(hidden=(16, 8), dropout=0.5),
    "cnn": lambda: CNN(channels=[4, 8]),
    "deep cnn": lambda: CNN(channels=(4, 4, 4), dropout=0.5),
}


def digits_like(num_images: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(num_images, 1, 8, 8, generator=generator),
        "label": torch.randint(10, (num_images,), generator=generator),
    }


@pytest.mark.parametrize("name", MODELS)
def test_a_model_returns_the_mean_loss_and_the_accuracy_of_its_logits(name: str) -> None:
    model, batch = MODELS[name]().eval(), digits_like()
    outputs = model(batch)
    assert set(outputs) == {"loss", "accuracy", "logits"}
    assert outputs["logits"].shape == (6, 10)
    assert torch.equal(outputs["loss"], functional.cross_entropy(outputs["logits"], batch["label"]))
    is_right = outputs["logits"].argmax(dim=1) == batch["label"]
    assert outputs["accuracy"].item() == pytest.approx(is_right.float().mean().item())
    assert not outputs["accuracy"].requires_grad


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_trained(name: str) -> None:
    model = MODELS[name]()
    model(digits_like(64))["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_metrics_of_a_float64_model_are_float64() -> None:
    batch = digits_like()
    outputs = MLP().double()({**batch, "image": batch["image"].double()})
    assert {name: value.dtype for name, value in outputs.items()} == dict.fromkeys(outputs, torch.float64)


def test_models_without_dropout_have_no_dropout_layers() -> None:
    assert not any(isinstance(module, nn.Dropout) for module in [*MLP().modules(), *CNN().modules()])
    assert sum(isinstance(module, nn.Dropout) for module in MLP(hidden=[4, 4], dropout=0.1).modules()) == 2
    assert sum(isinstance(module, nn.Dropout) for module in CNN(dropout=0.1).modules()) == 1


def test_image_shape_and_number_of_classes_can_be_changed() -> None:
    batch = {"image": torch.rand(2, 3, 12, 12), "label": torch.tensor([0, 4])}
    assert MLP(in_features=432, num_classes=5)(batch)["logits"].shape == (2, 5)
    assert CNN(in_channels=3, image_size=12, num_classes=5)(batch)["logits"].shape == (2, 5)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (lambda: MLP(hidden=[64, 0]), "hidden[1]=0: expected a whole number, 1 or more."),
        (lambda: MLP(hidden=64), "hidden=64: expected a list of whole numbers, such as [64, 64]."),
        (lambda: MLP(hidden="64"), "hidden='64': expected a list of whole numbers, such as [64, 64]."),
        (lambda: MLP(dropout=1.0), "dropout=1.0: expected a fraction in [0, 1)."),
        (lambda: MLP(dropout=True), "dropout=True: expected a fraction in [0, 1)."),
        (lambda: MLP(num_classes=2.5), "num_classes=2.5: expected a whole number, 1 or more."),
        (lambda: CNN(channels=[]), "channels=[]: expected at least one convolution."),
        (lambda: CNN(channels=[1] * 4), "image_size=8: expected at least 16 pixels for 4 poolings."),
        (lambda: CNN(dropout=float("nan")), "dropout=nan: expected a fraction in [0, 1)."),
        (lambda: CNN(in_channels="1"), "in_channels='1': expected a whole number, 1 or more."),
    ],
)
def test_wrong_settings_are_refused(model: Any, line: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        model()
    assert str(caught.value) == line


@pytest.mark.parametrize("label", [-1, -100, -(2**63)])
def test_labels_below_0_are_refused_and_never_ignored(label: int) -> None:
    batch = {**digits_like(2), "label": torch.tensor([3, label])}
    message = rf"^model: expected labels of 0 or more, the data has labels from {label} to 3\.$"
    for read in (MLP().check_batch, MLP()):
        with pytest.raises(ValueError, match=message):
            read(batch)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8])
def test_features_of_another_type_than_the_weights_are_refused(dtype: torch.dtype) -> None:
    batch = digits_like()
    MLP().check_batch(batch)
    with pytest.raises(ValueError) as caught:
        MLP().check_batch({**batch, "image": batch["image"].to(dtype)})
    expected = f"model: expected features in torch.float32, the data has features in {dtype}; convert the data."
    assert str(caught.value) == expected
    if dtype.is_floating_point:
        MLP().to(dtype).check_batch({**batch, "image": batch["image"].to(dtype)})


def test_data_of_another_shape_is_refused_with_the_setting_to_change() -> None:
    batch = {"image": torch.rand(2, 3, 4, 4), "label": torch.tensor([0, 4])}
    with pytest.raises(ValueError, match=r"^in_features=64: expected 48, the number of values in a sample\.$"):
        MLP()(batch)
    with pytest.raises(ValueError, match=r"^in_channels=1: expected 3, the number of channels of an image\.$"):
        CNN()(batch)
    with pytest.raises(ValueError, match=r"^image_size=8: expected 4, the height and width of an image\.$"):
        CNN(in_channels=3)(batch)
