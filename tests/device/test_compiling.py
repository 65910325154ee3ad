"""Compiled training: all forwards are compiled, names and checkpoints stay plain, and a resume continues bitwise."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from loopwright import Checkpointing, TrainingLoop
from loopwright.checkpoint import plain_names, read_checkpoint, step_folder
from loopwright.data import Loader
from loopwright.device import Device
from loopwright.errors import SettingError
from loopwright.hooks import Logger

# torch looks at the gradient of each input of a compiled block, and warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

EAGER = {"backend": "aot_eager"}  # traces and transforms the model as other backends do, and needs no C++ compiler


class Block(nn.Module):
    """A residual layer. It notes whether it runs compiled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(width, width), nn.Dropout(0.3)

    def forward(self, x_BC: Tensor) -> tuple[Tensor, bool]:
        return x_BC + self.dropout(self.layer(x_BC).tanh()), torch.compiler.is_compiling()


class Stack(nn.Module):
    """Two blocks and a squared loss. The metric ``compiled`` is the fraction of the blocks that ran compiled."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.last = nn.Linear(width, 1)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        features, target = batch
        x_BC, num_compiled = self.first(features), 0
        for block in self.blocks:
            x_BC, is_compiled = block(x_BC)
            num_compiled += is_compiled
        return {"loss": (self.last(x_BC) - target).square().mean(), "compiled": num_compiled / 2}


def device(target: str | None, **settings: Any) -> Device:
    return Device("cpu", compile=None if target is None else {"target": target, **EAGER, **settings})


def train(run_dir: Path, on: Device, ckpt_path: Path | None = None, **settings: Any) -> Any:
    """Train 8 steps on batches of 4 and 2 rows, with validations."""
    loop = TrainingLoop(max_steps=8, eval_frequency=4)
    saves = Checkpointing(every_n_steps=1)
    arguments = {"model": Stack, "optimizer": tiny.adamw, "checkpoint": saves, "run_dir": run_dir, **settings}
    ours = tiny.trainer(loop, device=on, **arguments)
    data = Loader(tiny.rows(14), batch_size=4, shuffle=True)
    ours.fit(data, Loader(tiny.rows(12), batch_size=5), ckpt_path=ckpt_path)
    return ours


@pytest.mark.parametrize("target", ["blocks", "model", None])
def test_training_and_validation_run_compiled_and_nothing_else_changes(target: str | None, tmp_path: Path) -> None:
    ours = train(tmp_path, device(target))
    is_compiled = float(target is not None)
    assert (ours.metrics["train/compiled"], ours.metrics["val/compiled"]) == (is_compiled, is_compiled)
    assert type(ours.model) is Stack and list(ours.model.state_dict()) == list(Stack().state_dict())
    saved = read_checkpoint(step_folder(tmp_path, 8)).state["model"]
    assert {name: each.shape for name, each in saved.items()} == {
        name: each.shape for name, each in plain_names(Stack()).items()
    }


def test_compiled_code_computes_the_same_model(tmp_path: Path) -> None:
    compiled, plain = (
        train(tmp_path / str(target), device(target), model=tiny.Regression) for target in ("model", None)
    )
    assert tiny.largest_difference(tiny.weights(compiled), tiny.weights(plain)) < 1e-5


def check_resumes(on: Device, tmp_path: Path) -> None:
    straight = train(tmp_path / "straight", on)
    for step in (3, 7):
        again = train(tmp_path / str(step), on, step_folder(tmp_path / "straight", step), seed=99)
        assert tiny.snapshot(again) == tiny.snapshot(straight)
        assert again.metrics == straight.metrics


@pytest.mark.slow
@pytest.mark.parametrize("target", ["blocks", "model"])
def test_a_compiled_run_resumes_bitwise(target: str, tmp_path: Path) -> None:
    check_resumes(device(target), tmp_path)


@pytest.mark.slow  # it runs the C++ compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor imports deprecated parts of torch
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("compiling", ["blocks", {"target": "model", "dynamic": False}])
def test_a_run_that_is_compiled_to_machine_code_resumes_bitwise(compiling: Any, tmp_path: Path) -> None:
    check_resumes(Device("cpu", compile=compiling), tmp_path)


@pytest.mark.parametrize(
    ("saved", "now", "change"),
    [
        (device("model"), device(None), "device.compile: model, backend=aot_eager -> null"),
        (device(None), device("model"), "device.compile: null -> model, backend=aot_eager"),
        (
            device("model"),
            device("model", dynamic=True),
            "device.compile: .* -> model, dynamic=True, backend=aot_eager",
        ),
        (Device("cpu"), Device("cpu", matmul="high"), "device.matmul: null -> high"),
        (Device("cpu", channels_last=True), Device("cpu"), "device.channels_last: true -> false"),
    ],
)
def test_a_resume_with_settings_that_change_the_rounding_is_refused(
    saved: Device, now: Device, change: str, tmp_path: Path
) -> None:
    train(tmp_path / "a", saved)
    with pytest.raises(SettingError, match=rf"its run had other settings \({change}\)"):
        train(tmp_path / "b", now, step_folder(tmp_path / "a", 4))


def test_many_models_are_compiled_in_one_process() -> None:
    """Catches torch's limit of 8 compilations per function, above which a model silently runs uncompiled."""

    class Product(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def forward(self, batch: Any) -> dict[str, Any]:
            return {"loss": self.weight.square().sum(), "compiled": float(torch.compiler.is_compiling())}

    for width in range(1, 11):
        model = partial(Product, width)
        ours = tiny.trainer(TrainingLoop(num_steps=1), model=model, device=device("model"))
        assert ours.fit(tiny.batches(1)).metrics["train/compiled"] == 1.0


class Timing(Logger):
    """Collects the times by step."""

    def __init__(self) -> None:
        self.times: list[tuple[int, str, float]] = []

    def log_metrics(self, metrics: Any, step: int) -> None:
        """Ignore the metrics."""

    def log_timing(self, timing: Any, step: int) -> None:
        """Keep the times of training."""
        self.times += [(step, name.removeprefix("train/"), value) for name, value in timing.items() if "train" in name]


def test_the_first_step_is_timed_apart_once_and_not_in_the_rate() -> None:
    timing = Timing()
    loop = TrainingLoop(num_steps=2, eval_frequency=None)
    ours = tiny.trainer(loop, model=Stack, device=device("model"), loggers=[timing], log_every_n_steps=1)
    ours.fit(tiny.batches())
    ours.fit(tiny.batches())
    compiled = [(step, value) for step, name, value in timing.times if name == "compile_seconds"]
    seconds = {step: value for step, name, value in timing.times if name == "seconds"}
    assert [step for step, _ in compiled] == [1]
    assert 0 < max(seconds.values()) < compiled[0][1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("bloks", r"compile='bloks': expected blocks, model, null, or a mapping .*. Did you mean blocks\?"),
        (True, "compile=True: expected blocks, model"),
        ({"backend": "inductor"}, "compile.target: expected blocks or model"),
        ({"target": "modle"}, r"compile.target='modle': expected blocks or model. Did you mean model\?"),
        ({"target": "model", "mod": None}, r"compile.mod: no such key. Did you mean mode\?"),
        ({"target": "model", "mode": "fast"}, "compile.mode='fast': expected one of default, reduce-overhead"),
        (
            {"target": "model", "mode": "default", **EAGER},
            "compile.mode='default': expected null with backend=aot_eager",
        ),
        ({"target": "model", "dynamic": 1}, "compile.dynamic=1: expected true, false or null"),
        ({"target": "model", "backend": 1}, "compile.backend=1: expected the name of a backend"),
    ],
)
def test_wrong_settings_are_refused(given: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Device(compile=given)


@pytest.mark.parametrize(
    ("compiling", "blocks", "message"),
    [
        (None, ["Block"], r"blocks=\['Block'\]: expected null unless blocks are compiled or sharded"),
        ("model", ["Block"], "expected null unless blocks are compiled"),
        ("blocks", "Block", "blocks='Block': expected a list of class names"),
        ("blocks", [], "expected a list of class names"),
        ("blocks", [Block], "expected a list of class names"),
    ],
)
def test_wrong_blocks_are_refused(compiling: str | None, blocks: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Device(compile=compiling, blocks=blocks)


def test_a_backend_that_torch_does_not_have_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(SettingError, match=r"device.compile.backend='aot_eagr': .*. Did you mean aot_eager\?"):
        tiny.trainer(device=device("model", backend="aot_eagr"))


def test_a_machine_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    expected = r"device.compile=model: expected a C\+\+ compiler on this machine; install no-such-compiler, or use"
    with pytest.raises(SettingError, match=expected):
        tiny.trainer(device=Device("cpu", compile="model"))
    tiny.trainer(device=device("model"))
