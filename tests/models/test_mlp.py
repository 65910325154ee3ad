"""Tests of `MLP` and `MLPRegressor` on rows of a table, and of the errors for data that does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from loopwright.errors import SettingError
from loopwright.models import MLP, MLPRegressor


def table(num_rows: int = 6, *target_shape: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "features": torch.randn(num_rows, 5, generator=generator),
        "target": torch.randn(num_rows, *target_shape, generator=generator),
    }


def test_features_give_the_same_outputs_as_an_image_with_the_same_values() -> None:
    model, image = MLP(in_features=64), torch.rand(3, 1, 8, 8)
    label = torch.tensor([0, 1, 2])
    first, second = model({"image": image, "label": label}), model({"features": image.flatten(1), "label": label})
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
def test_a_regression_returns_the_mean_squared_and_mean_absolute_error(shape: tuple[int, ...]) -> None:
    batch = table(6, *shape)
    model = MLPRegressor(in_features=5, hidden=[8], num_targets=batch["target"][0].numel())
    outputs = model(batch)
    assert set(outputs) == {"loss", "mean_absolute_error", "prediction"}
    assert outputs["prediction"].shape == batch["target"].shape
    assert torch.equal(outputs["loss"], functional.mse_loss(outputs["prediction"], batch["target"]))
    error = (outputs["prediction"] - batch["target"]).abs().mean()
    assert outputs["mean_absolute_error"].item() == pytest.approx(error.item())
    assert not outputs["mean_absolute_error"].requires_grad
    outputs["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_target_deviation_changes_only_the_mean_absolute_error() -> None:
    batch, plain = table(), MLPRegressor(in_features=5, hidden=[8])
    scaled = MLPRegressor(in_features=5, hidden=[8], target_deviation=20)
    scaled.load_state_dict(plain.state_dict())
    first, second = plain(batch), scaled(batch)
    assert second["mean_absolute_error"].item() == pytest.approx(20 * first["mean_absolute_error"].item())
    assert torch.equal(first["loss"], second["loss"]) and torch.equal(first["prediction"], second["prediction"])


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "1"])
def test_a_wrong_target_deviation_is_refused(value: Any) -> None:
    with pytest.raises(SettingError, match=r"target_deviation=.*: expected a (finite )?number above 0"):
        MLPRegressor(target_deviation=value)


@pytest.mark.parametrize(
    ("model", "batch", "line"),
    [
        (
            MLPRegressor(in_features=5, hidden=[]),
            {"features": torch.zeros(2, 5), "label": torch.zeros(2).long()},
            "model: expected features (or image) and target in a batch, found features, label; "
            "to classify, use model=mlp; to predict a number, model=mlp_regressor.",
        ),
        (
            MLP(in_features=5, hidden=[]),
            table(),
            "model: expected features (or image) and label in a batch, found features, target; "
            "to predict the number in target, use model=mlp_regressor; to classify the rows of a table by a column y "
            "of numbers, use 'data.types={y: category}'.",
        ),
        (
            MLP(),
            {"tokens": torch.zeros(2, 5).long()},
            "model: expected features (or image) and label in a batch, found tokens; model=gpt takes tokens.",
        ),
        (MLPRegressor(in_features=4), table(), "in_features=4: expected 5, the number of values in a sample."),
        (
            MLPRegressor(in_features=5, num_targets=2),
            table(6, 3),
            "num_targets=2: expected 3, the number of targets of a sample.",
        ),
        (
            MLP(in_features=5, num_classes=3),
            {"features": torch.zeros(2, 5), "label": torch.tensor([1, 3])},
            "num_classes=3: expected at least 4, because the data has the label 3.",
        ),
        (
            MLPRegressor(in_features=5),
            {"features": torch.zeros(5), "target": torch.tensor(1.0)},
            "model: expected one target for each sample, the data has samples of shape (5,) and targets of shape ().",
        ),
        (
            MLP(in_features=5),
            {"features": torch.zeros(2, 5), "label": torch.tensor([1, 3, 0])},
            "model: expected one label for each sample, the data has samples of shape (2, 5) and labels of shape (3,).",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused_with_the_setting_to_change(
    model: Any, batch: dict[str, Tensor], line: str
) -> None:
    with pytest.raises(ValueError) as caught:
        model(batch)
    assert str(caught.value) == line


def test_a_sample_may_be_a_single_number() -> None:
    batch = {"features": torch.zeros(3), "label": torch.tensor([0, 1, 0])}
    assert MLP(in_features=1, num_classes=2)(batch)["logits"].shape == (3, 2)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^num_targets=0: expected a whole number, 1 or more\.$"):
        MLPRegressor(num_targets=0)
