"""A checkpoint with missing or extra entries, or from another run, is refused; nothing is guessed."""

from __future__ import annotations

import json
import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim

from loopwright import Callback, Checkpointing, Trainer, TrainingLoop
from loopwright.checkpoint import read_checkpoint
from loopwright.errors import CheckpointError, SettingError
from loopwright.loggers import JSONLinesLogger
from sealing import leaves, read_trees, seal, without, write_trees
from tiny import Regression, adamw, batches, is_bitwise_equal, trainer, weights


class Net(Regression):
    """A model with dropout, batch norm, and a buffer that is not persistent."""

    def __init__(self) -> None:
        super().__init__(dropout=0.3)
        self.layers.append(nn.BatchNorm1d(1))
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        self.seen += 1
        return super().forward(batch)


class Average(Callback):
    """Has a moving average of the parameters as its state."""

    def __init__(self) -> None:
        self.mean: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, model: nn.Module, *_: Any) -> None:
        for name, value in model.named_parameters():
            self.mean[name] = self.mean.get(name, torch.zeros_like(value)) * 0.9 + 0.1 * value.detach()

    def state_dict(self) -> dict[str, Any]:
        return {"mean": dict(self.mean)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mean = dict(state_dict["mean"])


class Patience(Callback):
    """Has two numbers as its state."""

    def __init__(self) -> None:
        self.best, self.num_worse = float("inf"), 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "num_worse": self.num_worse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.num_worse = state_dict["best"], state_dict["num_worse"]


def build(run_dir: Path, **settings: Any) -> Trainer:
    arguments: dict[str, Any] = {
        "loop": TrainingLoop(max_steps=6, eval_frequency=2),
        "model": Net,
        "optimizer": adamw,
        "schedulers": [
            partial(optim.lr_scheduler.CosineAnnealingLR, T_max=6),
            partial(optim.lr_scheduler.MultiStepLR, milestones=[2, 4, 4]),
            {"scheduler": optim.lr_scheduler.ReduceLROnPlateau, "monitor": "val/loss"},
        ],
        "callbacks": [Average(), Patience()],
        "checkpoint": Checkpointing(every_n_steps=3),
        "run_dir": run_dir,
    }
    return trainer(**(arguments | settings))


def resume(path: Path, **settings: Any) -> Trainer:
    ours = build(Path(tempfile.mkdtemp(dir=path.parent)), **settings)
    ours.fit(batches(8), [batches(3)], ckpt_path=path)
    return ours


def complaint(path: Path) -> str | None:
    """Return the error message of a resume from ``path``, or None if it is accepted."""
    try:
        resume(path)
    except (CheckpointError, SettingError) as error:
        return str(error)
    return None


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return the checkpoint of step 3 of a run of 6 steps."""
    build(tmp_path).fit(batches(8), [batches(3)])
    return tmp_path / "checkpoints" / "step_00000003"


def named(way: tuple[Any, ...]) -> str:
    """Return the part of a path in ``state.json`` that every message about it must contain."""
    return next(str(key) for key in reversed(way[:-1] if way[-1] == "~tensor" else way) if isinstance(key, str))


def test_each_missing_leaf_of_the_state_is_named(saved: Path) -> None:
    whole = json.loads((saved / "state.json").read_text())
    ways = [*leaves(whole)]
    for way in ways:
        (saved / "state.json").write_text(json.dumps(without(whole, way)))
        seal(saved)
        with pytest.raises(CheckpointError, match=r"^[^\n]+: state\.json: ") as caught:
            read_checkpoint(saved)
        assert named(way) in str(caught.value)
    assert len(ways) > 250


def test_each_missing_leaf_is_refused_by_its_reader(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The outline is updated, so it cannot find the missing leaf; the reader of the leaf must refuse it."""
    caplog.set_level(logging.ERROR)
    trees = read_trees(saved)
    accepted, ways = [], [*leaves(trees)]
    for way in ways:
        write_trees(saved, without(trees, way))
        said = complaint(saved)
        if said is None:
            accepted.append(way)
        else:
            assert "\n" not in said and said.removeprefix("ckpt_path=").startswith(str(saved))
            assert way[:2] != ("state", "plan") or way[2] in said
    assert {way[:3] for way in accepted} == {
        ("state", "metrics", "latest"),  # may hold any metrics
        ("state", "metrics", "monitor"),  # older checkpoints have none
        ("state", "metrics", "mode"),
        ("state", "plan", "checkpoint.at_validations"),  # older checkpoints have none
        ("state", "plan", "loop.eval_at_start"),  # older checkpoints have none
        ("state", "settings", "device"),  # older checkpoints have none
        ("state", "settings", "precision"),
        ("state", "settings", "device.compile"),
        ("state", "settings", "device.matmul"),
        ("state", "settings", "device.channels_last"),
        ("state", "schedulers", 0),  # inside their own lists
        ("state", "schedulers", 1),
        ("state", "monitored", 0),
        ("state", "callbacks", "Patience"),  # inside its own value: inf has become an empty mapping
    }
    assert (len(accepted), len(ways)) == (16, 166)


def test_each_missing_tensor_is_named(saved: Path) -> None:
    num_removed = 0
    for file in ("model.safetensors", "optimizer.safetensors", "state.safetensors"):
        whole = (saved / file).read_bytes()
        tensors = load_file(saved / file)
        for name in tensors:
            save_file({key: tensor for key, tensor in tensors.items() if key != name}, saved / file)
            seal(saved)
            with pytest.raises(CheckpointError, match=rf"does not fit {file}: tensor '[^']+' is missing") as caught:
                read_checkpoint(saved)
            assert f"'{name}'" in str(caught.value)
            num_removed += 1
        save_file({**tensors, "another": torch.zeros(1)}, saved / file)
        seal(saved)
        with pytest.raises(CheckpointError, match=f"does not fit {file}: tensor 'another' is in the tensor file"):
            read_checkpoint(saved)
        (saved / file).write_bytes(whole)
    assert num_removed == 9 + 3 * 6 + 8


def mappings(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path to each mapping of a JSON tree that is not a tag."""
    if isinstance(tree, list):
        return [way for index, value in enumerate(tree) for way in mappings(value, (*path, index))]
    if not isinstance(tree, dict):
        return []
    own = [] if next(iter(tree), "").startswith("~") else [path]
    return own + [way for name, value in tree.items() for way in mappings(value, (*path, name))]


def with_more(tree: Any, way: tuple[Any, ...]) -> Any:
    copy = json.loads(json.dumps(tree))
    node = copy
    for key in way:
        node = node[key]
    node["more"] = "x"
    return copy


def test_each_extra_entry_is_refused(saved: Path) -> None:
    whole = json.loads((saved / "state.json").read_text())
    ways = mappings(whole)
    for way in ways:
        (saved / "state.json").write_text(json.dumps(with_more(whole, way)))
        seal(saved)
        with pytest.raises(
            CheckpointError, match=r"more|expected the keys|expected (an object|a list|a scalar), found"
        ):
            read_checkpoint(saved)
    assert len(ways) > 40


def test_extra_entries_that_the_outline_has_are_refused_or_reported(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees = read_trees(saved)
    taken = []
    ways = [way for way in mappings(trees) if way]
    for way in ways:
        caplog.clear()
        write_trees(saved, with_more(trees, way))
        said = [complaint(saved) or "", *(each for each in caplog.messages if "this run does not have" in each)]
        assert len(said) <= 2
        if not any("more" in each for each in said):
            assert said == [""]
            taken.append(way)
    # Only callbacks and optimizers know the entries of their own states, so extra entries there are accepted.
    owned = {("state",), ("state", "callbacks", "Average"), ("state", "callbacks", "Average", "mean"),
             ("state", "callbacks", "Patience")}  # fmt: skip
    assert {way for way in taken if way[0] != "optimizer"} == owned
    assert {way[:2] for way in taken if way[0] == "optimizer"} <= {("optimizer", "state")}


TENSOR = {"~tensor": "streams.torch"}  # another name for a tensor that is there


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        (("state", "position", "global_step"), 4, "position.global_step: 4, expected 3"),
        (("state", "position", "global_step"), "3", "position.global_step: '3', expected 3"),
        (("state", "position", "pass_index"), -1, "position.pass_index: -1, expected a whole number, 0 or more"),
        (("state", "position", "micro_batch_index"), 1.5, "position.micro_batch_index: 1.5, expected a whole"),
        (("state", "position", "micro_batch_index"), 2**62, f"index: {2**62}, expected a whole number from 0 to 7"),
        (("state", "position"), {"~float": "nan"}, "position: nan, expected a mapping"),
        (("optimizer", "param_groups", 0, "lr"), {"~float": "nan"}, "[0].lr: nan, expected a number (finite"),
        (("optimizer", "param_groups", 0, "lr"), "0.1", "[0].lr: '0.1', expected a number"),
        (("optimizer", "param_groups", 0, "params", 0), 1, "[0].params[0]: 1, expected 0"),
        (("optimizer", "param_groups"), {}, "optimizer.param_groups: a mapping, expected a list of 1"),
        (("optimizer", "state"), [], "optimizer.state: a list of 0, expected a mapping"),
        (("state", "plan", "start_step"), 9, "plan.start_step: 9, expected a whole number from 0 to 3"),
        (("state", "plan", "stop_step"), "6", "plan.stop_step: '6', expected a whole number, 3 or more"),
        (("state", "plan", "stop_step"), 10**4000, "plan.stop_step: 1000"),
        (("state", "plan", "loop.num_epochs"), TENSOR, "plan.loop.num_epochs: a tensor of 5056, torch.uint8, expected"),
        (("state", "plan"), {"~dict": [[1, 2]]}, "plan.start_step: missing in the checkpoint"),
        (("state", "plan"), None, "was saved before the first fit"),
        (("state", "settings", "optimizer"), TENSOR, "settings.optimizer: a tensor of 5056, torch.uint8, expected"),
        (("optimizer", "param_groups", 0, "lr"), {"~int": hex(10**4000)}, "[0].lr: 1000"),
        (("optimizer", "state", "~dict", 0, 0), 99, "optimizer.state.99: not in this run"),
        (("optimizer", "state", "~dict", 0, 1), 3, "optimizer.state.0: 3, expected a mapping"),
        (("state", "streams", "seed"), None, "streams.seed: null, expected a whole number"),
        (("state", "streams", "numpy", "~tuple", 2), 2**31 - 1, "numpy: expected the state of an MT19937"),
        (("state", "streams", "numpy", "~tuple", 1, 0), 2**70, f"streams.numpy[1][0]: {2**70}, expected a number"),
        (("state", "streams", "python", "~tuple", 1, "~tuple", 624), 10**30, f"[624]: {10**30}, expected a number"),
        (("state", "streams", "torch"), [1, 2], "streams.torch: a list of 2, expected a tensor of 5056, torch.uint8"),
        (("state", "metrics", "best"), {"name": 3, "value": 0.1, "step": 1}, "metrics: cannot be loaded (ValueError"),
        (("state", "metrics", "latest"), {"val/loss": "low"}, "metrics: cannot be loaded (ValueError: latest"),
        (("state", "schedulers"), "none", "schedulers: 'none', expected a list of 2"),
        (("state", "schedulers", 0, "T_max"), "6", "schedulers[0].T_max: '6', expected a number"),
        (("state", "schedulers", 0, "T_max"), None, "schedulers[0].T_max: null, expected a number"),
        (("state", "schedulers", 0, "base_lrs"), [], "schedulers[0].base_lrs: a list of 0, expected a list of 1"),
        (("state", "monitored", 0, "patience"), None, "monitored[0].patience: null, expected a number"),
        (("state", "callbacks", "Patience"), 3, "callbacks.Patience: 3, expected a mapping"),
        (("state", "buffers"), {"seen": 1}, "buffers.seen: 1, expected a tensor or null"),
        (("state", "buffers"), {"~dict": [["seen", TENSOR], [1, None]]}, "buffers.1: not in this run"),
        (("state", "buffers"), None, "buffers: null, expected a mapping"),
        (("state", "parameters"), None, "parameters: null, expected a list of 1"),
    ],
)  # fmt: skip
def test_invalid_values_are_refused(saved: Path, way: tuple[Any, ...], value: object, message: str) -> None:
    trees = read_trees(saved)
    node = trees
    for key in way[:-1]:
        node = node[key]
    removed = json.dumps(node[way[-1]])
    node[way[-1]] = value
    write_trees(saved, trees)
    if "~tensor" in removed:  # otherwise the message would be that the tensors belong to nothing
        file = "optimizer.safetensors" if way[0] == "optimizer" else "state.safetensors"
        save_file({k: t for k, t in load_file(saved / file).items() if f'"{k}"' not in removed}, saved / file)
        seal(saved)
    with pytest.raises(CheckpointError) as caught:
        resume(saved)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{saved}: ")


def test_texts_of_a_foreign_plan_are_shown_on_one_line_of_bounded_length(saved: Path) -> None:
    trees = read_trees(saved)
    trees["state"]["plan"] |= {"checkpoint.every_n_steps": "\x1b[2J\n" * 5000, "more\n" * 5000: 1}
    write_trees(saved, trees)
    said = complaint(saved) or ""
    assert said.isprintable() and len(said) < 1000
    assert "checkpoint.every_n_steps: \\x1b[2J \\x1b[2J" in said


def test_another_model_is_told_before_its_optimizer(saved: Path) -> None:
    class Deeper(Net):
        def __init__(self) -> None:
            super().__init__()
            self.layers.append(nn.Linear(1, 1))

    with pytest.raises(
        CheckpointError, match=r"the checkpoint does not fit the model: missing layers\.5\.bias 1 float32"
    ):
        resume(saved, model=Deeper)


def test_invalid_logger_state_is_refused_and_unknown_entries_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, loggers=[JSONLinesLogger()]).fit(batches(8), [batches(3)])
    path = tmp_path / "checkpoints" / "step_00000003"
    trees = read_trees(path)
    write_trees(path, with_more(trees, ("state", "loggers", "JSONLinesLogger")))
    build(tmp_path, loggers=[JSONLinesLogger()]).fit(batches(8), [batches(3)], ckpt_path=path)
    assert (
        "The checkpoint of step 3 has entries that this run does not have: loggers.JSONLinesLogger.more."
        in caplog.messages
    )
    trees["state"]["loggers"]["JSONLinesLogger"]["sizes"]["metrics.jsonl"] = -1
    write_trees(path, trees)
    with pytest.raises(CheckpointError, match=r"loggers\.JSONLinesLogger: cannot be loaded \(OSError: "):
        build(tmp_path, loggers=[JSONLinesLogger()]).fit(batches(8), [batches(3)], ckpt_path=path)


def test_a_refused_checkpoint_does_not_change_the_trainer(saved: Path) -> None:
    ours = build(saved.parent / "other", callbacks=[])
    before = weights(ours)
    with pytest.raises(
        CheckpointError, match=r"callbacks\.Average: not in this run; resuming needs a checkpoint of the same"
    ):
        ours.fit(batches(8), [batches(3)], ckpt_path=saved)
    assert is_bitwise_equal(weights(ours), before)
    assert ours.global_step == 0


class Swapped(Net):
    """A model with the same weight names as another, created in another order."""

    def __init__(self) -> None:
        super().__init__()
        first, second = self.layers[4], self.layers[3]
        self.layers = nn.Sequential()
        for name, module in (("4", first), ("3", second)):
            self.layers.add_module(name, module)
        for name, module in Net().layers.named_children():
            if name not in ("3", "4"):
                self.layers.add_module(name, module)


def test_an_optimizer_over_the_same_parameters_in_another_order_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"parameters\[0\]\[0\]: 'layers\.0\.weight', expected layers\.4\.weight"):
        resume(saved, model=Swapped)


class Wide(nn.Module):
    """A model with many parameters of one size."""

    def __init__(self, num: int, size: int, prefix: str) -> None:
        super().__init__()
        for index in range(num):
            self.register_parameter(f"{prefix}_{index:03d}", nn.Parameter(torch.zeros(size)))


def test_a_mismatch_is_one_line_of_bounded_length_with_names_shapes_and_the_nearest(tmp_path: Path) -> None:
    trainer(model=lambda: Wide(200, 3, "weight")).save_checkpoint(tmp_path / "wide")
    for other, expected in (
        (Wide(200, 4, "weight"), "weight_000: the model has 4 float32, the checkpoint 3 float32; "),
        (Wide(200, 3, "wieght"), "missing wieght_000 3 float32 (nearest: weight_000), "),
        (Wide(200, 3, "wieght"), "and 195 more; unexpected weight_000 3 float32 (nearest: wieght_000), "),
        (Wide(200, 3, "w" * 5000), f"missing {'w' * 79}… 3 float32"),
    ):
        with pytest.raises(CheckpointError) as caught:
            trainer(model=other).validate([batches(2)], ckpt_path=tmp_path / "wide")
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000
    assert str(caught.value).count("more") == 2


def test_buffers_that_are_not_persistent_must_have_their_names(saved: Path) -> None:
    class Renamed(Net):
        def __init__(self) -> None:
            super().__init__()
            del self.seen
            self.register_buffer("seem", torch.zeros(()), persistent=False)

    with pytest.raises(CheckpointError) as caught:
        resume(saved, model=Renamed)
    assert str(caught.value) == (
        f"{saved}: buffers.seem: missing in the checkpoint (nearest: seen); resuming needs a checkpoint of the same "
        "run; init_from loads only the weights."
    )


def test_a_view_into_another_weight_must_match_that_weight(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self, is_shared: bool) -> None:
            super().__init__()
            self.whole = nn.Parameter(torch.randn(6))
            self.front = nn.Parameter(self.whole.data[:2] if is_shared else torch.randn(2))

        def forward(self, batch: object) -> Tensor:
            return self.whole.sum() + self.front.sum()

    ours = trainer(model=lambda: Shared(True))
    ours.save_checkpoint(tmp_path / "shared")
    trainer(model=lambda: Shared(False)).save_checkpoint(tmp_path / "apart")
    again = trainer(TrainingLoop(num_steps=1), model=lambda: Shared(True), optimizer=partial(optim.SGD, lr=0.0))
    with pytest.raises(CheckpointError, match="share memory in the model, but not in the checkpoint"):
        again.fit(batches(2), init_from=tmp_path / "apart")
    again.fit(batches(2), init_from=tmp_path / "shared")
    assert is_bitwise_equal(weights(again), weights(ours))


def test_a_stream_of_an_accelerator_on_one_side_only_is_reported(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees = read_trees(saved)
    trees["state"]["streams"]["device"] = 1
    write_trees(saved, trees)
    resume(saved)
    assert "was saved with an accelerator and is resumed without one, or was saved without one" in caplog.text
