"""Tests of `sgd`, `adam` and `adamw`: their results are bitwise equal to the results of torch's optimizers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from loopwright import Checkpointing, TrainingLoop
from loopwright.optim import adam, adamw, kind_of, sgd
from tiny import batches, is_bitwise_equal, trainer, weights

Make = Callable[..., Optimizer]
PAIRS: list[tuple[Make, Make, dict[str, Any]]] = [
    (sgd, SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    (adam, Adam, {"lr": 0.01, "betas": [0.8, 0.9], "weight_decay": 0.01}),
    (adamw, AdamW, {"lr": 0.01, "betas": [0.8, 0.9], "eps": 1e-6}),
]


def trained(optimizer: Make) -> tuple[dict[str, torch.Tensor], Optimizer]:
    ours = trainer(TrainingLoop(num_steps=8), optimizer=optimizer)
    ours.fit(batches(8))
    assert ours.optimizer is not None
    return weights(ours), ours.optimizer


@pytest.mark.parametrize("kind", ["auto", "for_loop", "foreach"])
@pytest.mark.parametrize(("ours", "torchs", "settings"), PAIRS)
def test_on_the_cpu_torch_trains_the_same_weights(
    ours: Make, torchs: Make, settings: dict[str, Any], kind: str
) -> None:
    our_weights, optimizer = trained(functools.partial(ours, **settings, kind=kind))
    assert is_bitwise_equal(our_weights, trained(functools.partial(torchs, **settings))[0])
    assert kind_of(optimizer.param_groups[0]) == ("for_loop" if kind == "auto" else kind)


@pytest.mark.parametrize(("ours", "torchs", "settings"), PAIRS)
def test_kind_fused_equals_fused_in_torch(ours: Make, torchs: Make, settings: dict[str, Any]) -> None:
    our_weights, optimizer = trained(functools.partial(ours, **settings, kind="fused"))
    assert is_bitwise_equal(our_weights, trained(functools.partial(torchs, **settings, fused=True))[0])
    assert kind_of(optimizer.param_groups[0]) == "fused"


def test_the_kind_of_a_plain_torch_optimizer_is_default() -> None:
    assert kind_of(AdamW([nn.Parameter(torch.zeros(1))]).param_groups[0]) == "default"


def test_the_trainer_passes_parameter_names_to_the_optimizer() -> None:
    make = functools.partial(adamw, without_decay=["*.bias"], rate_factors={"layers.0.*": 0})
    our_weights, optimizer = trained(make)
    untrained = weights(trainer())
    assert [(len(group["params"]), group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (1, 0.0, 0.01),
        (1, 0.0, 0.0),
        (1, 0.001, 0.01),
        (1, 0.001, 0.0),
    ]
    unchanged = [name for name, value in our_weights.items() if torch.equal(value, untrained[name])]
    assert unchanged == ["layers.0.weight", "layers.0.bias"]


def test_the_error_for_a_pattern_without_a_match_names_its_setting() -> None:
    with pytest.raises(
        ValueError, match=r"^optimizer\.without_decay='norm': matches no parameter\. Parameters: layers"
    ):
        trainer(optimizer=functools.partial(adamw, without_decay=["norm"]))


def test_unknown_kinds_and_fused_with_complex_parameters_are_refused() -> None:
    named = [("weight", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))]
    with pytest.raises(ValueError, match=r"^kind='fast': expected auto, for_loop, foreach or fused\.$"):
        sgd(named, kind="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^kind='fused': expected another kind; fused .*; use auto\.$"):
        sgd(named, kind="fused")


@pytest.mark.parametrize("kind", ["for_loop", "foreach", "fused"])
def test_a_resumed_run_keeps_its_kind_and_its_groups(kind: str, tmp_path: Path) -> None:
    def run(max_steps: int, run_dir: Path, kind: str, ckpt_path: Path | None = None) -> Any:
        make = functools.partial(adamw, without_decay=["*.bias"], rate_factors={"layers.3.*": 0.1}, kind=kind)
        loop = TrainingLoop(max_steps=max_steps, eval_frequency=None)
        ours = trainer(loop, optimizer=make, checkpoint=Checkpointing(), run_dir=run_dir)
        ours.fit(data, ckpt_path=ckpt_path)
        return ours

    data = batches(8)
    straight = run(8, tmp_path / "straight", kind)
    run(3, tmp_path / "begun", kind)
    resumed = run(8, tmp_path / "resumed", "auto", tmp_path / "begun")
    assert is_bitwise_equal(weights(resumed), weights(straight))
    assert {kind_of(group) for group in resumed.optimizer.param_groups} == {kind}


@pytest.mark.parametrize("betas", [[0.9], 0.9, "ab", [0.9, None]])
@pytest.mark.parametrize("make", [adam, adamw])
def test_betas_that_are_not_two_numbers_are_refused(make: Make, betas: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^betas=.*: expected a list of two numbers in \[0, 1\), such as \[0.9, 0.999\]\.$"
    ):
        make(nn.Linear(1, 1).named_parameters(), betas=betas)
