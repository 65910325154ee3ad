"""`docs/trainer.md` lists every argument with its default, and its example runs."""

from __future__ import annotations

import contextlib
import inspect
import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, OneCycleLR, SequentialLR

import tiny
from loopwright import Checkpointing, Precision, Trainer, TrainingLoop
from loopwright.experiment.console.command_line import read_command_line

DOC = (Path(__file__).parents[1] / "docs" / "trainer.md").read_text(encoding="utf-8")


def table_of(name: str) -> list[list[str]]:
    """Return the cells of the table below the heading of a class, without its first two lines."""
    section = re.split(r"\n###? ", DOC.partition(f"## `{name}(…)`")[2])[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


@pytest.mark.parametrize("kind", [Trainer, TrainingLoop, Checkpointing, Precision])
def test_every_argument_is_listed_with_its_default(kind: Callable[..., Any]) -> None:
    parameters = inspect.signature(kind).parameters
    expected = [
        (f"`{name}`", "" if each.default is inspect.Parameter.empty else f"`{each.default!r}`")
        for name, each in parameters.items()
    ]
    assert [(cells[0], cells[1]) for cells in table_of(kind.__name__)] == expected


def test_the_overrides_are_those_of_the_command_line() -> None:
    for cells in table_of("Trainer"):
        (typed,) = re.findall(r"`(.*)`", cells[3])
        assert read_command_line(shlex.split(typed)).overrides == tuple(shlex.split(typed))


def test_every_public_method_is_listed() -> None:
    listed = re.findall(r"^\| `trainer\.(\w+)\(", DOC, flags=re.MULTILINE)
    ours = [name for name, each in vars(Trainer).items() if inspect.isfunction(each) and not name.startswith("_")]
    assert set(ours) - set(listed) == {"skip_update", "name_scope"}
    assert set(listed) <= set(ours)


def test_the_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(None):
        exec(compile(code, "trainer.md", "exec"), names)
    assert names["result"].global_step == 16 and names["result"].metrics["val/loss"] < 1


def sequence(optimizer: torch.optim.Optimizer) -> SequentialLR:
    return SequentialLR(optimizer, [ExponentialLR(optimizer, 0.9), ExponentialLR(optimizer, 0.5)], milestones=[3])


SCHEDULERS: dict[str, Callable[..., Any]] = {
    "LambdaLR": partial(LambdaLR, lr_lambda=lambda step: 1 / (1 + step)),
    "OneCycleLR": partial(OneCycleLR, max_lr=0.1),
    "CosineAnnealingLR": partial(CosineAnnealingLR, T_max=6),
    "SequentialLR": sequence,
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_torch_resume_bitwise(name: str, tmp_path: Path) -> None:
    data = tiny.batches(6)
    settings: dict[str, Any] = {"checkpoint": Checkpointing(every_n_steps=3), "schedulers": [SCHEDULERS[name]]}
    with tiny.trainer(TrainingLoop(num_steps=6), run_dir=tmp_path, **settings) as straight:
        straight.fit(data)
        expected = tiny.weights(straight)
    with tiny.trainer(TrainingLoop(num_steps=6), run_dir=tmp_path / "again", **settings) as resumed:
        resumed.fit(data, ckpt_path=tmp_path / "checkpoints" / "step_00000003")
        assert tiny.is_bitwise_equal(tiny.weights(resumed), expected)


def test_frozen_layers_are_saved_and_not_trained(tmp_path: Path) -> None:
    class Frozen(tiny.Regression):
        def __init__(self) -> None:
            super().__init__()
            first = self.layers[0]
            assert isinstance(first, nn.Linear)
            first.weight.requires_grad_(False)

    with tiny.trainer(model=Frozen) as trainer:
        before = {name: each.clone() for name, each in tiny.weights(trainer).items()}
        trainer.fit(tiny.batches())
        after = tiny.weights(trainer)
    assert torch.equal(before["layers.0.weight"], after["layers.0.weight"])
    assert not torch.equal(before["layers.0.bias"], after["layers.0.bias"])
