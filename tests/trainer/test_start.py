"""`Trainer.fit(init_from=…)`: weights that fit, and the state of the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopwright import Checkpointing, Trainer, TrainingLoop
from loopwright.checkpoint import write_checkpoint
from loopwright.errors import CheckpointError, SettingError
from tiny import Regression, adamw, batches, is_bitwise_equal, sgd, snapshot, trainer, weights

Log = pytest.LogCaptureFixture


class Classifier(nn.Module):
    """The layers of `Regression`, with another last layer."""

    def __init__(self, num_classes: int = 3, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.0), nn.Linear(8, num_classes)).to(dtype)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.layers(batch[0].to(self.layers[0].weight.dtype)).square().mean()


class Tied(nn.Module):
    """Two layers with one weight, or with two."""

    def __init__(self, is_tied: bool = True, has_second: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        if has_second:
            self.second = nn.Linear(4, 4, bias=False)
        if is_tied:
            self.second.weight = self.first.weight

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        hidden = self.first(batch[0])
        return (self.second(hidden) if hasattr(self, "second") else hidden).square().mean()


class Other(nn.Module):
    """A model of which no weight fits `Regression`."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 1)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.line(batch[0]).square().mean()


def save(folder: Path, num_steps: int = 3, **settings: Any) -> Trainer:
    """Train for some steps, and save the checkpoint ``folder``."""
    ours = trainer(TrainingLoop(num_steps=num_steps), **settings)
    ours.fit(batches())
    ours.save_checkpoint(folder)
    return ours


def start(model: Any, **settings: Any) -> Trainer:
    return trainer(TrainingLoop(num_steps=1), model=model, optimizer=partial(torch.optim.SGD, lr=0.0), **settings)


def test_a_model_with_a_new_head_takes_the_other_weights(tmp_path: Path, caplog: Log) -> None:
    saved = weights(save(tmp_path / "a"))
    fresh = start(Classifier)
    before = weights(fresh)
    fresh.fit(batches(), init_from=tmp_path / "a", strict=False)
    after = weights(fresh)
    for name in ("layers.0.weight", "layers.0.bias"):
        assert torch.equal(after[name], saved[name])
    for name in ("layers.3.weight", "layers.3.bias"):
        assert torch.equal(after[name], before[name])
    (record,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert record.getMessage() == (
        f"{tmp_path / 'a'}: not used: layers.3.weight 1x8 float32, layers.3.bias 1 float32; "
        "kept at initial values: layers.3.weight 3x8 float32, layers.3.bias 3 float32."
    )


def test_nothing_is_said_if_every_weight_fits(tmp_path: Path, caplog: Log) -> None:
    saved = weights(save(tmp_path / "a"))
    fresh = start(Regression)
    fresh.fit(batches(), init_from=tmp_path / "a", strict=False)
    assert is_bitwise_equal(weights(fresh), saved)
    assert caplog.text == ""


def test_strict_weights_name_the_argument_that_loads_a_part(tmp_path: Path) -> None:
    save(tmp_path / "a")
    fresh = start(Classifier)
    before = weights(fresh)
    with pytest.raises(CheckpointError, match=r"strict=False \(in a configuration: init_strict=false\) loads the wei"):
        fresh.fit(batches(), init_from=tmp_path / "a")
    assert is_bitwise_equal(weights(fresh), before)


def test_a_checkpoint_of_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"a: no weight in the checkpoint fits the model: missing line.bias 1 f"):
        start(Other).fit(batches(), init_from=tmp_path / "a", strict=False)


def test_the_lists_of_weights_are_short(tmp_path: Path, caplog: Log) -> None:
    write_checkpoint(tmp_path / "a", {"model": {"line.bias": torch.zeros(1)} | {str(n): 0 for n in range(99)}}, step=0)
    start(Other).fit(batches(), init_from=tmp_path / "a", strict=False)
    assert "4 int, and 94 more; kept" in caplog.text


def test_weights_of_another_float_type_are_converted_and_listed(tmp_path: Path, caplog: Log) -> None:
    saved = save(tmp_path / "a", model=partial(Classifier, dtype=torch.float64), optimizer=sgd)
    fresh = trainer(TrainingLoop(num_steps=1), model=Classifier, optimizer=partial(torch.optim.SGD, lr=0, momentum=0.9))
    fresh.fit(batches(), init_from=tmp_path / "a", strict=False, init_optimizer=True)
    assert is_bitwise_equal(weights(fresh), {name: each.float() for name, each in weights(saved).items()})
    assert "converted: layers.0.weight 8x4 float64, " in caplog.text
    assert all(each["momentum_buffer"].dtype == torch.float32 for each in fresh.optimizer.state.values())


def test_tied_weights_are_taken_under_either_name(tmp_path: Path, caplog: Log) -> None:
    saved = weights(save(tmp_path / "one", model=partial(Tied, is_tied=False, has_second=False)))["first.weight"]
    fresh = start(Tied)
    fresh.fit(batches(), init_from=tmp_path / "one", strict=False)
    assert fresh.model.first.weight is fresh.model.second.weight
    assert torch.equal(fresh.model.second.weight, saved)
    assert caplog.text == ""
    write_checkpoint(tmp_path / "second", {"model": {"second.weight": saved + 1}}, step=0)
    fresh = start(Tied)
    fresh.fit(batches(), init_from=tmp_path / "second", strict=False)
    assert torch.equal(fresh.model.first.weight, saved + 1)


def test_different_values_for_one_tied_weight_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "two", model=partial(Tied, is_tied=False))
    with pytest.raises(CheckpointError, match=r"first.weight and second.weight share memory in the model, but not in"):
        start(Tied).fit(batches(), init_from=tmp_path / "two", strict=False)


@pytest.mark.parametrize("optimizer", [sgd, adamw], ids=["sgd", "adamw"])
@pytest.mark.parametrize("strict", [True, False])
def test_with_the_state_of_the_optimizer_a_run_continues_bitwise_on_the_rest_of_the_data(
    tmp_path: Path, optimizer: Callable[..., Any], strict: bool
) -> None:
    data = batches(8)
    whole = trainer(TrainingLoop(num_steps=8), optimizer=optimizer)
    whole.fit(data)
    first = trainer(TrainingLoop(num_steps=4), optimizer=optimizer)
    first.fit(data[:4])
    first.save_checkpoint(tmp_path / "half")
    second = trainer(TrainingLoop(num_steps=4), optimizer=optimizer)
    second.fit(data[4:], init_from=tmp_path / "half", strict=strict, init_optimizer=True)
    assert second.global_step == 4
    assert snapshot(second) == snapshot(whole)


def test_without_its_state_the_optimizer_starts_as_new(tmp_path: Path) -> None:
    data = batches(8)
    save(tmp_path / "a")
    other, same = trainer(TrainingLoop(num_steps=4)), trainer(TrainingLoop(num_steps=4))
    other.fit(data, init_from=tmp_path / "a")
    same.fit(data, init_from=tmp_path / "a", init_optimizer=True)
    assert not is_bitwise_equal(weights(other), weights(same))


def test_the_settings_of_the_optimizer_and_the_schedule_are_those_of_the_new_run(tmp_path: Path) -> None:
    halving = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    save(tmp_path / "a", schedulers=halving, optimizer=partial(torch.optim.AdamW, lr=0.5, weight_decay=0.3))
    seen: list[float] = []

    def scheduler(optimizer: Any) -> Any:
        seen.append(optimizer.param_groups[0]["lr"])
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)

    fresh = trainer(TrainingLoop(num_steps=1), optimizer=partial(torch.optim.AdamW, lr=0.01), schedulers=scheduler)
    fresh.fit(batches(), init_from=tmp_path / "a", init_optimizer=True)
    (group,) = fresh.optimizer.param_groups
    assert (seen, group["initial_lr"], group["weight_decay"]) == ([0.01], 0.01, 0.01)
    assert group["lr"] == pytest.approx(0.001)
    assert {float(each["step"]) for each in fresh.optimizer.state.values()} == {4.0}


def test_a_new_head_begins_without_a_state(tmp_path: Path, caplog: Log) -> None:
    old = save(tmp_path / "a", optimizer=adamw)
    moments = [each["exp_avg"].clone() for each in old.optimizer.state.values()]
    fresh = trainer(
        TrainingLoop(num_steps=1), model=Classifier, optimizer=partial(torch.optim.AdamW, betas=(1.0 - 1e-9, 0.9))
    )
    fresh.fit(batches(), init_from=tmp_path / "a", strict=False, init_optimizer=True)
    states = list(fresh.optimizer.state.values())
    assert [float(each["step"]) for each in states] == [4.0, 4.0, 1.0, 1.0]
    assert torch.allclose(states[0]["exp_avg"], moments[0], rtol=1e-4)
    assert "; without a state in the optimizer: layers.3.weight, layers.3.bias." in caplog.text


def test_a_run_that_took_the_state_of_the_optimizer_resumes_bitwise(tmp_path: Path) -> None:
    save(tmp_path / "a", optimizer=adamw)
    arguments = {"init_from": tmp_path / "a", "strict": False, "init_optimizer": True}
    straight = trainer(TrainingLoop(max_steps=6), model=Classifier, optimizer=adamw)
    straight.fit(batches(8), **arguments)
    settings = {"model": Classifier, "optimizer": adamw, "checkpoint": Checkpointing(), "run_dir": tmp_path / "run"}
    trainer(TrainingLoop(max_steps=3), **settings).fit(batches(8), **arguments)
    resumed = trainer(TrainingLoop(max_steps=6), **settings)
    resumed.fit(batches(8), ckpt_path="last")
    assert snapshot(resumed) == snapshot(straight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init_optimizer": True}, "init_optimizer=True: is used only with init_from"),
        ({"strict": False}, "strict=False: is used only with init_from"),
        ({"ckpt_path": "a", "init_optimizer": True}, "init_optimizer=True: is used only with init_from"),
        ({"init_from": "a", "strict": None}, "strict=null: expected True or False"),
        ({"init_from": "a", "init_optimizer": 1}, "init_optimizer=1: expected True or False"),
    ],
)
def test_wrong_combinations_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        trainer().fit(batches(), **arguments)


def frozen_first(parameters: Any) -> Any:
    return torch.optim.SGD(list(parameters)[2:], lr=0.1, momentum=0.9)


def two_groups(parameters: Any) -> Any:
    first, *rest = parameters
    return torch.optim.SGD([{"params": rest}, {"params": [first]}], lr=0.1, momentum=0.9)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (adamw, "a: the optimizer was SGD, and is AdamW in this run; leave out init_optimizer to load the weights al"),
        (frozen_first, r"had other parameter groups \(unexpected layers.0.bias, layers.0.weight\); strict=False"),
        (two_groups, r"groups \(1 in the checkpoint and 2 in this run, or the same parameters in another order\)"),
    ],
)
def test_another_optimizer_is_refused_before_anything_is_loaded(tmp_path: Path, optimizer: Any, message: str) -> None:
    save(tmp_path / "a")
    fresh = trainer(optimizer=optimizer)
    before = weights(fresh)
    with pytest.raises(CheckpointError, match=message):
        fresh.fit(batches(), init_from=tmp_path / "a", init_optimizer=True)
    assert is_bitwise_equal(weights(fresh), before) and not fresh.optimizer.state


@pytest.mark.parametrize("optimizer", [frozen_first, two_groups])
def test_states_are_taken_by_name_if_not_strict(tmp_path: Path, optimizer: Any) -> None:
    save(tmp_path / "a")
    same, other = trainer(TrainingLoop(num_steps=1)), trainer(TrainingLoop(num_steps=1), optimizer=optimizer)
    same.fit(batches(1), init_from=tmp_path / "a", init_optimizer=True)
    other.fit(batches(1), init_from=tmp_path / "a", strict=False, init_optimizer=True)
    names = {parameter: name for name, parameter in same.model.named_parameters()}
    buffers = {names[each]: state["momentum_buffer"] for each, state in same.optimizer.state.items()}
    for name, parameter in other.model.named_parameters():
        if parameter in other.optimizer.state:
            assert torch.equal(other.optimizer.state[parameter]["momentum_buffer"], buffers[name])


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_without_an_optimizer_is_refused(tmp_path: Path, strict: bool) -> None:
    write_checkpoint(tmp_path / "a", {"model": dict(Regression().state_dict())}, step=0)
    with pytest.raises(CheckpointError, match="a: contains no state of an optimizer; leave out init_optimizer"):
        trainer().fit(batches(), init_from=tmp_path / "a", strict=strict, init_optimizer=True)


@pytest.mark.parametrize(
    "broken",
    [
        {"state": {0: {}}, "param_groups": [{"params": [0]}]},
        {"state": {0: 1}, "param_groups": [{"params": [0, 1, 2, 3]}]},
        {"state": [], "param_groups": 3},
        {"param_groups": []},
        {"state": {}, "param_groups": [{"params": [[0], 1, 2, 3]}]},
    ],
)
def test_a_malformed_state_of_the_optimizer_is_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    names = [[name for name, _ in Regression().named_parameters()]]
    state = {"model": dict(Regression().state_dict()), "parameters": names, "settings": {"optimizer": "SGD"}}
    write_checkpoint(tmp_path / "a", {**state, "optimizer": broken}, step=0)
    with pytest.raises(CheckpointError, match=r"a: optimizer: its state is malformed \(.*\); leave out init_opt"):
        trainer().fit(batches(), init_from=tmp_path / "a", init_optimizer=True)


class Counting(Regression):
    """`Regression` with extra state."""

    def get_extra_state(self) -> dict[str, int]:
        return {"count": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def test_extra_state_is_no_parameter_of_an_optimizer(tmp_path: Path) -> None:
    state = {"model": dict(Counting().state_dict()), "settings": {"optimizer": "SGD"}}
    optimizer = {"state": {0: {"momentum_buffer": None}}, "param_groups": [{"params": [0]}]}
    write_checkpoint(tmp_path / "a", {**state, "parameters": [["_extra_state"]], "optimizer": optimizer}, step=0)
    fresh = trainer(TrainingLoop(num_steps=1), model=Counting)
    assert fresh.fit(batches(), init_from=tmp_path / "a", strict=False, init_optimizer=True).global_step == 1
