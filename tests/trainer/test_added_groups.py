"""Parameter groups that a callback adds during a fit: schedules extend to them, and the run resumes bitwise."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from loopwright import Callback, TrainingLoop
from loopwright.checkpoint import read_checkpoint
from loopwright.errors import CheckpointError, SettingError
from loopwright.optim import inverse_sqrt, warmup_cosine, warmup_stable_decay
from sealing import read_trees, seal, write_trees
from tiny import Regression, batches, is_bitwise_equal, snapshot, trainer, weights

NUM_STEPS = 9


class Frozen(Regression):
    """A regression whose first layer is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[0].requires_grad_(False)


class Unfreeze(Callback):
    """Trains the first layer, as a group with a rate of its own, from a step on."""

    def __init__(self, step: int = 4, **options: Any) -> None:
        self.step, self.options = step, options

    def on_train_batch_end(self, ours: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if ours.global_step == self.step:
            layer = model.layers[0].requires_grad_(True)
            ours.optimizer.add_param_group({"params": list(layer.parameters()), "lr": 0.02, **self.options})


def adam(parameters: Any, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam([each for each in parameters if each.requires_grad], **{"lr": 0.05, **options})


def build(schedule: Any, max_steps: int = NUM_STEPS, **settings: Any) -> Any:
    made: dict[str, Any] = {"model": Frozen, "optimizer": adam, "callbacks": [Unfreeze()], **settings}
    schedulers = [] if schedule is None else [schedule]
    return trainer(TrainingLoop(max_steps=max_steps), schedulers=schedulers, **made)


def rates(ours: Any) -> list[float]:
    return [float(group["lr"]) for group in ours.optimizer.param_groups]


SCHEDULES: dict[str, Any] = {
    "none": None,
    "LambdaLR": partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: 0.9**step),
    "MultiplicativeLR": partial(lr_scheduler.MultiplicativeLR, lr_lambda=lambda step: 0.9),
    "StepLR": partial(lr_scheduler.StepLR, step_size=2),
    "MultiStepLR": partial(lr_scheduler.MultiStepLR, milestones=[3, 6]),
    "ConstantLR": partial(lr_scheduler.ConstantLR, total_iters=6),
    "LinearLR": partial(lr_scheduler.LinearLR, total_iters=6),
    "ExponentialLR": partial(lr_scheduler.ExponentialLR, gamma=0.9),
    "PolynomialLR": partial(lr_scheduler.PolynomialLR, total_iters=12, power=2.0),
    "CosineAnnealingLR": partial(lr_scheduler.CosineAnnealingLR, T_max=20),
    "WarmRestarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=3),
    "SequentialLR": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer), lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)], [6]
    ),
    "ChainedScheduler": lambda optimizer: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step), lr_scheduler.StepLR(optimizer, 3)]
    ),
    "warmup_cosine": partial(warmup_cosine, total_steps=NUM_STEPS, warmup_steps=6),
    "warmup_stable_decay": partial(warmup_stable_decay, total_steps=NUM_STEPS, warmup_steps=2),
    "inverse_sqrt": partial(inverse_sqrt, total_steps=NUM_STEPS, warmup_steps=2),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_treats_an_added_group_as_if_it_had_been_there_from_the_start(name: str) -> None:
    ours = build(SCHEDULES[name])
    ours.fit(batches(5))
    first, added = rates(ours)
    assert added == pytest.approx(first * 0.02 / 0.05)
    both = build(SCHEDULES[name], optimizer=lambda parameters: torch.optim.Adam(
        [{"params": [each], "lr": rate} for each, rate in zip(parameters, [0.05, 0.05, 0.02, 0.02], strict=True)]
    ), callbacks=[])  # fmt: skip
    both.fit(batches(5))
    assert [first, added] == pytest.approx(rates(both)[::2])


@pytest.mark.parametrize("num_before", [3, 4, 6])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_with_an_added_group_resumes_bitwise(name: str, num_before: int, tmp_path: Path) -> None:
    """Steps 3, 4 and 6: before the group, at the step after which it is added, and later. A save is no difference."""
    schedule = SCHEDULES[name]
    before = build(schedule, num_before)
    before.fit(batches(5))
    before.save_checkpoint(tmp_path / "saved")
    straight, resumed = build(schedule), build(schedule, seed=5)
    straight.fit(batches(5))
    resumed.fit(batches(5), ckpt_path=tmp_path / "saved")
    assert snapshot(resumed) == snapshot(straight)
    assert len(rates(straight)) == 2
    assert not torch.equal(resumed.model.layers[0].weight, build(schedule).model.layers[0].weight)


def test_a_rate_as_a_tensor_that_groups_share_is_scaled_once(tmp_path: Path) -> None:
    schedule = SCHEDULES["LambdaLR"]

    class Extend(Unfreeze):
        def on_train_batch_end(self, ours: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if ours.global_step == 4:
                ours.optimizer.add_param_group({"params": list(model.layers[0].requires_grad_(True).parameters())})

    ours = build(schedule, optimizer=partial(adam, lr=torch.tensor(0.05)), callbacks=[Extend()])
    ours.fit(batches(5))
    assert rates(ours) == pytest.approx([0.05 * 0.9**9] * 2)


def test_a_rate_at_the_start_that_the_user_gives_is_used(tmp_path: Path) -> None:
    ours = build(SCHEDULES["LambdaLR"], max_steps=4, callbacks=[Unfreeze(lr=0.03, initial_lr=0.04)])
    ours.fit(batches(5))
    ours.save_checkpoint(tmp_path / "saved")
    assert rates(ours)[1] == 0.03
    resumed = build(SCHEDULES["LambdaLR"], max_steps=5, callbacks=[])
    resumed.fit(batches(5), ckpt_path=tmp_path / "saved")
    assert rates(resumed)[1] == pytest.approx(0.04 * 0.9**5)


REFUSED: dict[str, tuple[Any, str]] = {
    "CyclicLR": (
        lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, 3, cycle_momentum=False),
        "CyclicLR has other rates for each group",
    ),
    "OneCycleLR": (
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20),
        "OneCycleLR needs more than its lr: expected initial_lr, max_lr, min_lr in the added group; initial_lr is",
    ),
    "SWALR": (lambda optimizer: torch.optim.swa_utils.SWALR(optimizer, 0.05), "expected initial_lr, swa_lr in the"),
    "several functions": (
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, [lambda step: 1.0, lambda step: 0.5]),
        "LambdaLR has another function for each group",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schedule_that_cannot_extend_says_so_in_a_line(name: str) -> None:
    schedule, message = REFUSED[name]
    optimizer = adam if name != "several functions" else lambda parameters: torch.optim.Adam(
        [{"params": [each]} for each in parameters if each.requires_grad]
    )  # fmt: skip
    with pytest.raises(SettingError, match=message) as caught:
        build(schedule, optimizer=optimizer).fit(batches(5))
    assert str(caught.value).startswith("schedulers=") and "\n" not in str(caught.value)


def test_a_group_with_all_entries_of_its_schedule_is_accepted() -> None:
    entries = {"initial_lr": 0.004, "max_lr": 0.1, "min_lr": 4e-7, "max_momentum": 0.95, "base_momentum": 0.85}
    schedule = partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=20)
    ours = build(schedule, callbacks=[Unfreeze(**entries)])
    ours.fit(batches(5))
    assert rates(ours)[0] == pytest.approx(rates(ours)[1])


def test_parameters_that_a_callback_unfreezes_stay_so_after_a_resume(tmp_path: Path) -> None:
    """Without a new group: the optimizer has all parameters, and some are frozen at first."""

    class Thaw(Callback):
        def on_train_batch_end(self, ours: Any, model: nn.Module, *args: Any) -> None:
            if ours.global_step == 2:
                model.requires_grad_(True)
                model.get_parameter("layers.3.bias").requires_grad_(False)

    def run(max_steps: int, **start: Any) -> Any:
        optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
        ours = build(None, max_steps, optimizer=optimizer, callbacks=[Thaw()])
        ours.fit(batches(5), **start)
        return ours

    run(4).save_checkpoint(tmp_path / "saved")
    straight, resumed = run(7), run(7, ckpt_path=tmp_path / "saved")
    assert is_bitwise_equal(weights(resumed), weights(straight))
    assert [each.requires_grad for each in resumed.model.parameters()] == [True, True, True, False]
    assert read_checkpoint(tmp_path / "saved").state["frozen"] == ["layers.3.bias"]
    fresh = build(None, 5)
    fresh.fit(batches(5), init_from=tmp_path / "saved")  # only weights
    assert len(rates(fresh)) == 2


def edited(folder: Path, edit: Any) -> Path:
    trees = read_trees(folder)
    edit(trees)
    write_trees(folder, trees)
    seal(folder)
    return folder


NOT_ADDED = r"optimizer\.param_groups: a list of 2, expected a list of 1"
FAULTS: dict[str, tuple[Any, str]] = {
    "rate": (
        lambda trees: trees["optimizer"]["param_groups"][1].update(lr="fast"),
        r"optimizer\.param_groups\[1\]\.lr: 'fast', expected a number",
    ),
    "missing": (lambda trees: trees["optimizer"]["param_groups"][1].pop("eps"), r"param_groups\[1\]\.eps: missing"),
    "unknown": (lambda trees: trees["state"]["parameters"][1].__setitem__(0, "other"), NOT_ADDED),
    "twice": (lambda trees: trees["state"]["parameters"][1].__setitem__(0, "layers.3.bias"), NOT_ADDED),
    "no names": (lambda trees: trees["state"]["parameters"].__setitem__(1, []), NOT_ADDED),
    "frozen": (lambda trees: trees["state"].update(frozen=["other"]), r"frozen\[0\]: 'other', expected layers"),
    "not a list": (lambda trees: trees["state"].update(frozen=3), "frozen: 3, expected a list of 0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_changed_checkpoint_is_refused_and_adds_nothing(name: str, tmp_path: Path) -> None:
    saved = build(SCHEDULES["StepLR"], 5)
    saved.fit(batches(5))
    folder = saved.save_checkpoint(tmp_path / "saved")
    edit, message = FAULTS[name]
    ours = build(SCHEDULES["StepLR"])
    before = weights(ours)
    with pytest.raises(CheckpointError, match=message):
        ours.fit(batches(5), ckpt_path=edited(folder, edit))
    assert is_bitwise_equal(weights(ours), before) and len(rates(ours)) == 1
    ours.fit(batches(5))
    assert len(rates(ours)) == 2


def test_an_older_checkpoint_without_the_frozen_parameters_keeps_those_of_the_model(tmp_path: Path) -> None:
    saved = build(None, 3)
    saved.fit(batches(5))
    folder = edited(saved.save_checkpoint(tmp_path / "saved"), lambda trees: trees["state"].pop("frozen"))
    ours = build(None, 4, callbacks=[])
    assert ours.fit(batches(5), ckpt_path=folder).global_step == 4
    assert [each.requires_grad for each in ours.model.parameters()] == [False, False, True, True]
