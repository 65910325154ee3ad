"""Tests of `Summary` and of its table."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import tiny
from loopwright import TrainingLoop
from loopwright.callbacks import Summary
from loopwright.callbacks.parameter_table import Row, parameter_table

TABLE = """\
parameter        shape      parameters  trained
layers.0.weight  [8, 4]             32  yes
layers.0.bias    [8]                 8  no
layers.3.weight  [1, 8]              8  yes
layers.3.bias    [1]                 1  yes
total            4 tensors          49  partly"""


def frozen() -> nn.Module:
    model = tiny.Regression()
    model.layers[0].bias.requires_grad_(False)
    return model


def test_the_table_is_logged_and_written(tmp_path: Path) -> None:
    logged = tiny.Logged()
    ours = tiny.trainer(
        TrainingLoop(num_steps=1), model=frozen, callbacks=[Summary()], loggers=[logged], run_dir=tmp_path
    )
    ours.fit(tiny.batches())
    assert logged.texts["parameters"] == {0: TABLE}
    assert (tmp_path / "model.txt").read_text() == f"{ours.model_lines}\n\n{TABLE}\n"


def test_the_parameters_of_a_lazy_module_have_no_shape_before_the_first_batch() -> None:
    class Lazy(tiny.Regression):
        def __init__(self) -> None:
            super().__init__()
            self.layers[3] = nn.LazyLinear(1)

    logged = tiny.Logged()
    with_lazy = tiny.trainer(TrainingLoop(num_steps=1), model=Lazy, callbacks=[Summary()], loggers=[logged])
    with_lazy.fit(tiny.batches())
    assert "layers.3.weight  unknown before the first batch           0  yes" in logged.texts["parameters"][0]


def test_a_large_model_has_a_row_for_each_module_at_the_greatest_depth_that_fits() -> None:
    rows = [
        Row.of(f"blocks.{index}.{name}.weight", torch.zeros(3), index > 0) for index in range(6) for name in ("a", "b")
    ]
    rows.append(Row.of("head", torch.zeros(2, 5), True))
    assert len(parameter_table(rows, 13).splitlines()) == 15
    shown = parameter_table(rows, 12).splitlines()
    assert len(shown) == 9 and shown[1].split() == ["blocks.0", "2", "tensors", "6", "no"]
    assert parameter_table(rows, 6).splitlines()[1].split() == ["blocks", "12", "tensors", "36", "partly"]
    assert len(parameter_table(rows, 1).splitlines()) == 3
    wide = [Row.of(f"layer{index}", torch.zeros(1), True) for index in range(100)]
    lines = parameter_table(wide, 10).splitlines()
    assert len(lines) == 12 and lines[-2].split() == ["others", "91", "tensors", "91", "yes"]
