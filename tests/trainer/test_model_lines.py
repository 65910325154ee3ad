"""The lines about the model and the device: the parameters that exist, and those that are trained."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stdout
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from loopwright import Trainer, TrainingLoop
from loopwright.loggers import ProgressLogger
from tiny import Regression, batches, sgd, trainer


class Tied(Regression):
    def __init__(self) -> None:
        super().__init__()
        self.again = self.layers[0]


class Frozen(Regression):
    def __init__(self) -> None:
        super().__init__()
        self.layers[0].requires_grad_(False)


class Lazy(Regression):
    def __init__(self) -> None:
        super().__init__()
        self.layers[0] = nn.LazyLinear(8)


def of_last_layer(parameters: Any) -> torch.optim.Optimizer:
    return sgd([*parameters][2:])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "Model: Regression, 49 parameters (49 trained)"),
        ({"model": Tied}, "Model: Tied, 49 parameters (49 trained)"),
        ({"model": Frozen}, "Model: Frozen, 49 parameters (9 trained)"),
        ({"optimizer": of_last_layer}, "Model: Regression, 49 parameters (9 trained)"),
        ({"optimizer": None}, "Model: Regression, 49 parameters (0 trained)"),
        ({"model": partial(nn.Linear, 1, 1, bias=False)}, "Model: Linear, 1 parameter (1 trained)"),
        ({"model": Lazy}, "Model: Lazy, parameters without a shape before the first batch"),
    ],
)
def test_parameters_are_counted_once_and_the_trained_ones_apart(settings: dict[str, Any], line: str) -> None:
    assert trainer(**settings).model_lines.splitlines()[0] == line


def test_the_device_and_its_threads_are_named() -> None:
    assert trainer().model_lines.splitlines()[1] == f"Device: cpu, {threads(torch.get_num_threads())}"


def threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


@pytest.mark.parametrize("mode", ["lines", "off"])
def test_a_fit_begins_with_them_in_the_log_too(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "loopwright")
    ours: Trainer = trainer(TrainingLoop(num_steps=1), loggers=[ProgressLogger(mode)])
    with redirect_stdout(io.StringIO()) as shown:
        ours.fit(batches())
    assert caplog.messages[0].startswith("Model: Regression, 49 parameters (49 trained)\nDevice: cpu, ")
    assert shown.getvalue().startswith("Model: Regression, " if mode == "lines" else "")
