"""The shipped configuration files: each is composed, and each object in them is built."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import save_file

from loopwright import Callback, Checkpointing, Logger, LoopCallback, Precision
from loopwright.data import Splits
from loopwright.device import Device
from loopwright.experiment.compose.composer import VERSION_BASE
from loopwright.experiment.gate.instantiate import instantiate
from loopwright.experiment.gate.trust import NO_TRUST
from loopwright.experiment.jobs.metric_modes import settle_modes
from loopwright.shipped import conf_dir, task_dir
from photos import write_photos

pytestmark = pytest.mark.hydra

GROUPS = {
    "loop": {"training", "validation"},
    "model": {"mlp", "mlp_regressor", "cnn", "gpt", "vit"},
    "data": {
        "digits",
        "stdlib_text",
        "synthetic",
        "synthetic_regression",
        "synthetic_tokens",
        "csv",
        "image_folder",
        "tensor_file",
    },
    "device": {"auto", "cpu", "cuda", "gpu", "mps", "xpu"},
    "optimizer": {"sgd", "adam", "adamw"},
    "scheduler": {
        "none",
        "constant",
        "inverse_sqrt",
        "linear",
        "plateau",
        "step",
        "warmup_cosine",
        "warmup_stable_decay",
    },
    "precision": {"float32", "bf16", "fp16", "bf16_pure"},
    "checkpoint": {"default", "none"},
    "callbacks": {
        "default",
        "none",
        "learning_rate",
        "stop_on_non_finite",
        "time_limit",
        "early_stopping",
        "ema",
        "metrics",
        "sample_text",
        "compression_baseline",
        "downstream",
        "throughput",
        "memory",
        "data_stall",
        "utilisation",
        "gradient_norms",
        "noise_scale",
        "profile",
        "summary",
    },
    "loggers": {"default", "none", "progress", "json_lines", "csv", "tensorboard", "wandb"},
}
KINDS: dict[str, type | tuple[type, ...]] = {
    "loop": LoopCallback,
    "model": torch.nn.Module,
    "data": Splits,
    "device": Device,
    "precision": Precision,
    "checkpoint": Checkpointing,
    "callbacks": Callback,
    "loggers": Logger,
}
# Overrides for the values that are `???` in the file of an option.
GIVEN = {
    ("callbacks", "time_limit"): ["callbacks.time_limit.minutes=1"],
    ("data", "csv"): ["data.path=loopwright:wine.csv", "data.target=cultivar"],
    ("data", "image_folder"): ["data.path=photos"],
    ("data", "tensor_file"): ["data.path=rows.safetensors"],
}
# Packages that an option needs, and that an extra installs.
NEEDED = {("callbacks", "metrics"): "torchmetrics", ("callbacks", "downstream"): "lm_eval"}
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in sorted(options)]
BUILT = [pytest.param(*option, marks=pytest.mark.extras if option in NEEDED else ()) for option in OPTIONS]
# Groups whose options set values of other groups, or the settings of sweeps. Other tests run them.
GLOBAL = {"experiment", "debug", "hparams_search", "sweep"}
FILES = [file for file in sorted(conf_dir().glob("*/*.yaml")) if file.parent.name not in ("experiment", "downstream")]


@pytest.fixture(scope="module", autouse=True)
def composing() -> Iterator[None]:
    with initialize_config_dir(str(conf_dir()), **VERSION_BASE):
        yield


def composed(group: str, option: str) -> Any:
    config = OmegaConf.to_container(
        compose("config", overrides=[f"{group}={option}", *GIVEN.get((group, option), ())]), resolve=True
    )
    assert isinstance(config, dict)
    return settle_modes(config)[group]


def test_the_groups_have_these_options() -> None:
    found = {
        folder.name: {file.stem for file in folder.glob("*.yaml")}
        for folder in conf_dir().iterdir()
        if folder.is_dir() and folder != task_dir()
    }
    assert {group: options for group, options in found.items() if group not in GLOBAL} == GROUPS


@pytest.mark.parametrize(("group", "option"), BUILT)
def test_every_option_is_built(group: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if (group, option) in NEEDED:
        pytest.importorskip(NEEDED[group, option])
    write_photos(tmp_path / "photos")
    save_file({"image": torch.zeros(5, 1, 8, 8)}, tmp_path / "rows.safetensors")
    node = composed(group, option)
    if option == "none":
        assert node is None
    elif group in ("optimizer", "scheduler"):
        made = build_optimizer(node) if group == "optimizer" else build_scheduler(node)
        assert hasattr(made, "step")
    else:
        nodes = list(node.values()) if group in ("callbacks", "loggers") else [node]
        assert nodes
        assert all(isinstance(instantiate(part, NO_TRUST, group), KINDS[group]) for part in nodes)


def build_optimizer(node: Any) -> Any:
    make: Any = instantiate(node, NO_TRUST, "optimizer")
    return make([("weight", torch.nn.Parameter(torch.zeros(1)))])


def build_scheduler(node: Any) -> Any:
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    if "monitor" in node:
        assert node["monitor"] == "val/loss"
        make: Any = instantiate(node["scheduler"], NO_TRUST, "scheduler")
        return make(sgd)
    make = instantiate(node, NO_TRUST, "scheduler")
    return make(sgd, total_steps=10)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_value_has_a_comment_and_default_marks_are_right(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    defaults = signature_defaults(text)
    for line in text.splitlines():
        setting = re.match(r"^\s*(\w+): +(\S.*?)( +# .*)?$", line)
        if setting is None or setting[1] == "_target_":
            continue
        name, value, comment = setting.groups()
        assert comment, f"{line}: expected its unit or meaning on the same line"
        is_default = name in defaults and yaml.safe_load(value) == defaults[name]
        assert comment.strip().startswith("# default") == is_default, line


def signature_defaults(text: str) -> dict[str, Any]:
    target = re.search(r"_target_: (\S+)", text)
    if target is None:
        return {}
    module, _, name = target[1].rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    defaults = {key: p.default for key, p in parameters.items() if p.default is not inspect.Parameter.empty}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
