"""Tests of `GradientNorms`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import tiny
from loopwright import Precision, TrainingLoop
from loopwright.callbacks import GradientNorms
from loopwright.callbacks.gradient_norms import layer_of
from loopwright.errors import SettingError
from loopwright.loggers import ProgressLogger


def norms(**settings: Any) -> tuple[dict[str, dict[int, float]], dict[str, float]]:
    """Return the logged norms, and the gradients' norms after step 2 that a hand-written backward gives."""
    logged = tiny.Logged()
    per = settings.pop("per", "layer")
    ours = tiny.trainer(
        TrainingLoop(num_steps=3, grad_accum_steps=2),
        callbacks=[GradientNorms(per)],
        loggers=[logged],
        log_every_n_steps=2,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
        **settings,
    )
    ours.fit(tiny.batches())
    features, target = (torch.cat(parts) for parts in zip(*tiny.batches()[2:4], strict=True))
    ours.model((features, target))["loss"].backward()
    by_hand = {name: float(each.grad.norm()) for name, each in ours.model.named_parameters()}
    return {name: steps for name, steps in logged.metrics.items() if "gradient_norm" in name}, by_hand


@pytest.mark.parametrize("precision", [None, Precision(max_gradient_norm=0.01), Precision(max_gradient_value=0.01)])
def test_norms_are_those_of_the_whole_step_before_clipping(precision: Precision | None) -> None:
    logged, by_hand = norms(per="parameter", precision=precision)
    assert {name.removeprefix("train/gradient_norm/") for name in logged} == {*by_hand, "train/gradient_norm"}
    for name, norm in by_hand.items():
        assert [*logged[f"train/gradient_norm/{name}"]] == [2, 3]
        assert logged[f"train/gradient_norm/{name}"][2] == pytest.approx(norm, rel=1e-5)
    assert logged["train/gradient_norm"][2] == pytest.approx(sum(norm**2 for norm in by_hand.values()) ** 0.5, rel=1e-5)


def test_norms_of_layers_join_their_parameters() -> None:
    logged, by_hand = norms()
    assert [*logged] == ["train/gradient_norm", "train/gradient_norm/layers.0", "train/gradient_norm/layers.3"]
    expected = (by_hand["layers.0.weight"] ** 2 + by_hand["layers.0.bias"] ** 2) ** 0.5
    assert logged["train/gradient_norm/layers.0"][2] == pytest.approx(expected, rel=1e-5)


def test_layers_are_modules_in_containers_or_the_outermost_modules_without_one() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(1, 1)) for _ in range(2)])
            self.norm = nn.LayerNorm(1)
            self.scale = nn.Parameter(torch.ones(()))

    model = nn.Module()
    model.decoder, model.head = Decoder(), nn.TransformerDecoderLayer(2, 1, 2)
    layers = {layer_of(name, model) for name, _ in model.named_parameters()}
    assert layers == {"decoder.blocks.0", "decoder.blocks.1", "decoder.norm", "decoder.scale", "head"}
    assert layer_of("0.weight", nn.Sequential(nn.Linear(1, 1))) == "0"


def test_norms_of_16_bit_gradients_do_not_overflow() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, dtype=torch.float16))

        def forward(self, batch: Any) -> Any:
            return (self.weight * 60_000).sum().float()

    logged = tiny.Logged()
    ours = tiny.trainer(
        TrainingLoop(num_steps=1),
        model=Large,
        callbacks=[GradientNorms()],
        loggers=[logged],
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
    )
    ours.fit(tiny.batches())
    assert logged.metrics["train/gradient_norm"][1] == pytest.approx(120_000, rel=1e-3)


def test_the_progress_line_shows_only_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    loggers = [ProgressLogger(mode="lines", every_seconds=1e-9)]
    tiny.trainer(TrainingLoop(num_steps=1), callbacks=[GradientNorms()], loggers=loggers).fit(tiny.batches())
    output = capsys.readouterr().out
    assert "train/gradient_norm " in output and "train/gradient_norm/" not in output


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(SettingError, match="per='layers': expected layer or parameter"):
        GradientNorms("layers")  # type: ignore[arg-type]


@pytest.mark.slow
def test_names_of_a_compiled_model_are_those_of_the_plain_model() -> None:
    logged = tiny.Logged()
    ours = tiny.trainer(
        TrainingLoop(num_steps=1),
        model=lambda: torch.compile(tiny.Regression(), backend="eager"),
        callbacks=[GradientNorms()],
        loggers=[logged],
    )
    ours.fit(tiny.batches())
    norms = {name for name in logged.metrics if "gradient_norm" in name}
    assert norms == {"train/gradient_norm", "train/gradient_norm/layers.0", "train/gradient_norm/layers.3"}


def test_parameters_that_the_optimizer_does_not_update_are_left_out() -> None:
    logged = tiny.Logged()
    ours = tiny.trainer(
        TrainingLoop(num_steps=1),
        optimizer=lambda parameters: torch.optim.SGD([*parameters][:2], lr=0.1),
        callbacks=[GradientNorms()],
        loggers=[logged],
    )
    ours.fit(tiny.batches())
    assert "train/gradient_norm/layers.3" not in logged.metrics
    assert logged.metrics["train/gradient_norm"] == logged.metrics["train/gradient_norm/layers.0"]
