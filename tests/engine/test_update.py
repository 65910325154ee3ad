"""The update: which gradients are divided, clipped and dropped, and when schedulers are stepped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from loopwright import Callback, Precision
from loopwright.engine.update import Update
from loopwright.precision import Scaling
from tiny import Regression, batches, is_bitwise_equal, parts, weights


def with_gradients(*callbacks: Callback, **settings: Any) -> Any:
    """Parts whose parameters have the gradients of one micro-batch."""
    ours = parts(*callbacks, **settings)
    ours.model(batches(1)[0])["loss"].backward()
    return ours


def gradients(ours: Any) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in ours.model.parameters()]


class Reading(Callback):
    """Keeps the gradients that the optimizer is about to use."""

    def on_before_optimizer_step(self, trainer: Any, model: nn.Module, optimizer: Any) -> None:
        self.gradients = [parameter.grad.clone() for parameter in model.parameters()]


class Counting(Callback):
    """Notes the hooks around the update."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.calls.append("before")

    def on_after_optimizer_step(self, *_: Any) -> None:
        self.calls.append("after")


@pytest.mark.parametrize("num_items", [4, torch.tensor(4)])
def test_summed_gradients_are_divided_once_before_hooks_see_them(num_items: Any) -> None:
    """Catches a hook that logs the norm of a sum, and gradients of one micro-batch that are divided."""
    for given, factor in ((num_items, 4), (None, 1)):
        reading = Reading()
        ours = with_gradients(reading)
        expected = gradients(ours)
        Update(ours, ours.optimizer)(given)
        assert all(map(torch.equal, reading.gradients, [gradient / factor for gradient in expected]))


def test_the_divided_gradients_are_clipped_of_all_groups_together() -> None:
    """Catches a norm of the undivided sum, and one that is computed for each parameter group alone."""
    model = Regression()
    optimizer = torch.optim.SGD([{"params": [parameter]} for parameter in model.parameters()], lr=1.0)
    ours = with_gradients(model=model, optimizer=optimizer, precision=Precision(max_gradient_norm=0.5))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    Update(ours, optimizer)(2)
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, model.parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_a_step_without_items_skips_its_update() -> None:
    """Catches a division by zero that makes every weight infinite, and a schedule that moves without an update."""
    counting = Counting()
    ours = with_gradients(counting)
    ours.schedulers = [StepLR(ours.optimizer, 1)]
    before = weights(ours.model)
    Update(ours, ours.optimizer)(0)
    assert is_bitwise_equal(weights(ours.model), before) and counting.calls == []
    assert ours.schedulers[0].last_epoch == 0 and ours.state.is_updated and ours.state.is_update_skipped
    assert all(parameter.grad is None for parameter in ours.model.parameters())


def test_a_number_of_items_on_a_device_is_not_read_and_divides_by_at_least_one() -> None:
    """Catches NaN gradients where an accelerator counts no items; the host tensor stands for one of a device."""
    ours = with_gradients()
    before = weights(ours.model)
    for parameter in ours.model.parameters():
        parameter.grad.zero_()
    Update(ours, ours.optimizer)(torch.tensor(0))
    assert is_bitwise_equal(weights(ours.model), before)


@pytest.mark.parametrize("is_on_instance", [False, True])
def test_an_optimizer_with_a_zero_grad_of_its_own_is_asked(is_on_instance: bool) -> None:
    """Catches gradients that are dropped without the optimizer's own bookkeeping."""
    asked: list[str] = []

    class Own(torch.optim.SGD):
        def zero_grad(self, set_to_none: bool = True) -> None:
            asked.append("class")
            super().zero_grad(set_to_none)

    model = Regression()
    optimizer = torch.optim.SGD(model.parameters()) if is_on_instance else Own(model.parameters())
    if is_on_instance:
        optimizer.zero_grad = lambda set_to_none=True: asked.append("instance")  # type: ignore[method-assign]
    Update(with_gradients(model=model, optimizer=optimizer), optimizer)(None)
    assert asked == (["instance"] if is_on_instance else ["class"])


def test_parameters_added_later_are_trained_and_their_gradients_dropped() -> None:
    """Catches a list of parameters that is made once, when the fit begins."""
    ours = with_gradients()
    update = Update(ours, ours.optimizer)
    extra = nn.Parameter(torch.ones(()))
    ours.optimizer.add_param_group({"params": [extra]})
    (extra**2).backward()
    update(None)
    assert extra.item() != 1.0 and extra.grad is None


def test_schedulers_follow_the_update_in_their_order() -> None:
    """Catches a rate of the next step that this step's update uses."""
    told: list[tuple[str, float]] = []

    class Listening(Callback):
        def on_after_optimizer_step(self, trainer: Any, model: nn.Module, optimizer: Any) -> None:
            told.append(("update", optimizer.param_groups[0]["lr"]))

        def on_after_scheduler_step(self, trainer: Any, model: nn.Module, optimizer: Any, scheduler: Any) -> None:
            told.append(("scheduler", optimizer.param_groups[0]["lr"]))

    ours = with_gradients(Listening())
    ours.schedulers = [StepLR(ours.optimizer, 1, gamma) for gamma in (0.5, 0.1)]
    Update(ours, ours.optimizer)(None)
    assert told == [
        ("update", 0.05),
        ("scheduler", pytest.approx(0.025)),
        ("scheduler", pytest.approx(0.0025)),
    ]


def test_a_skipped_update_moves_no_weight_and_no_schedule_and_drops_the_gradients() -> None:
    """Catches a schedule that runs ahead of the updates, and infinite gradients that reach the next step."""
    listening = Counting()
    ours = parts(listening, scaling=Scaling("cpu"))
    ours.scaling.scale(ours.model(batches(1)[0])["loss"]).backward()
    ours.schedulers = [StepLR(ours.optimizer, 1, 0.5)]
    before = [parameter.detach().clone() for parameter in ours.model.parameters()]
    next(ours.model.parameters()).grad.fill_(float("inf"))
    Update(ours, ours.optimizer)(None)
    assert all(map(torch.equal, before, ours.model.parameters()))
    assert listening.calls == ["before"]
    assert ours.optimizer.param_groups[0]["lr"] == 0.05
    assert all(parameter.grad is None for parameter in ours.model.parameters())
    assert ours.state.is_updated


def test_a_scaled_update_is_equal_to_the_update_without_a_scale() -> None:
    """Catches gradients that are clipped or divided before they are unscaled."""
    results = []
    for scaling in (None, Scaling("cpu", first_scale=1024.0)):
        ours = parts(model=Regression().double(), precision=Precision(max_gradient_norm=0.01), scaling=scaling)
        ours.model.load_state_dict({name: torch.ones_like(value) for name, value in ours.model.state_dict().items()})
        loss = ours.model([tensor.double() for tensor in batches(1)[0]])["loss"] * 4
        (loss if scaling is None else scaling.scale(loss)).backward()
        Update(ours, ours.optimizer)(4)
        results.append([parameter.detach().clone() for parameter in ours.model.parameters()])
    assert all(map(torch.equal, *results))
