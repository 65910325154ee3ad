"""A scaled loss gives the gradients of the unscaled loss, and an update with infinite gradients is skipped."""

from __future__ import annotations

import torch

from loopwright.precision import Scaling


def one_weight() -> tuple[torch.nn.Parameter, torch.optim.SGD]:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    return weight, torch.optim.SGD([weight], lr=0.5)


def test_the_update_equals_an_update_without_scaling() -> None:
    weight, optimizer = one_weight()
    scaling = Scaling("cpu", first_scale=1024.0)
    scaling.scale((weight * 2).sum()).backward()
    assert weight.grad is not None and weight.grad.tolist() == [2048.0]
    scaling.unscale(optimizer)
    assert weight.grad.tolist() == [2.0]
    assert scaling.step(optimizer)
    assert weight.tolist() == [0.0]


def test_an_update_with_an_infinite_gradient_is_skipped_and_the_scale_is_halved() -> None:
    weight, optimizer = one_weight()
    scaling = Scaling("cpu", first_scale=8.0)
    scaling.scale((weight * float("inf")).sum()).backward()
    scaling.unscale(optimizer)
    assert not scaling.step(optimizer)
    assert weight.tolist() == [1.0]
    assert scaling.state_dict()["scale"] == 4.0


def test_the_scale_grows_after_enough_updates_and_survives_a_resume() -> None:
    weight, optimizer = one_weight()
    scaling = Scaling("cpu", first_scale=8.0, growth_every_n_steps=2)
    for _ in range(2):
        scaling.scale(weight.sum()).backward()
        scaling.unscale(optimizer)
        assert scaling.step(optimizer)
        optimizer.zero_grad()
    resumed = Scaling("cpu", first_scale=2.0)
    resumed.load_state_dict(scaling.state_dict())
    assert resumed.state_dict()["scale"] == 16.0
