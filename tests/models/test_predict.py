"""Every shipped model predicts from a batch without targets, as its outputs for a batch with targets say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopwright.errors import SettingError
from loopwright.models import CNN, GPT, MLP, MLPRegressor, ViT

IMAGES = torch.rand(5, 1, 8, 8)
LABELS = torch.tensor([0, 1, 2, 1, 0])


@pytest.mark.parametrize("model", [MLP(num_classes=3), CNN(num_classes=3), ViT(num_classes=3)])
def test_a_classifier_returns_classes_and_probabilities(model: nn.Module) -> None:
    model.eval()
    logits = model({"image": IMAGES, "label": LABELS})["logits"]
    predictions: dict[str, Tensor] = model.predict({"image": IMAGES})
    assert torch.equal(predictions["prediction"], logits.argmax(dim=-1))
    assert torch.equal(predictions["probability"], logits.softmax(dim=-1))


@pytest.mark.parametrize("num_targets", [1, 3])
def test_a_regressor_returns_numbers(num_targets: int) -> None:
    model = MLPRegressor(in_features=64, num_targets=num_targets)
    target = torch.zeros(5) if num_targets == 1 else torch.zeros(5, num_targets)
    expected = model({"features": IMAGES.flatten(1), "target": target})["prediction"]
    assert torch.equal(model.predict({"features": IMAGES.flatten(1)})["prediction"], expected)


@pytest.mark.parametrize("model", [MLP(), MLPRegressor(), CNN(), ViT(), GPT(width=8, num_heads=2)])
def test_a_batch_without_samples_is_refused(model: Any) -> None:
    with pytest.raises(SettingError, match=r"expected .* in a batch, found other"):
        model.predict({"other": IMAGES})


def test_a_language_model_returns_the_token_after_each_row() -> None:
    model = GPT(vocab_size=20, context_length=6, width=8, num_layers=1, num_heads=2).eval()
    tokens = torch.randint(20, (4, 9), generator=torch.Generator().manual_seed(0))
    predictions = model.predict({"tokens": tokens})
    logits = model.logits(tokens[:, -6:])[:, -1]
    assert torch.equal(predictions["prediction"], logits.argmax(dim=-1))
    assert torch.allclose(predictions["probability"], logits.softmax(dim=-1))


@pytest.mark.parametrize("num_tokens", range(1, 9))
def test_padding_after_a_row_does_not_change_its_prediction(num_tokens: int) -> None:
    model = GPT(vocab_size=20, context_length=6, width=8, num_layers=1, num_heads=2).eval()
    row = torch.randint(20, (1, num_tokens), generator=torch.Generator().manual_seed(0))
    padded = torch.full((2, 9), -100)
    padded[0, :num_tokens], padded[1] = row, 3
    predictions = model.predict({"tokens": padded})
    alone = model.predict({"tokens": row})
    assert torch.allclose(predictions["probability"][:1], alone["probability"], atol=1e-6)
