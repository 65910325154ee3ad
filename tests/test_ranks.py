"""Several processes that train one model: the same weights as one process, resumes, validations and uneven data.

The processes are forked, and gloo connects them.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from loopwright import Callback, Checkpointing, Precision, TrainingLoop, ValidationLoop
from loopwright.checkpoint import read_checkpoint, steps_in
from loopwright.data import Loader
from loopwright.device import is_peer_error
from loopwright.loggers import JSONLinesLogger
from ranked import Died, on_ranks, outcomes
from tiny import Regression, adamw, is_bitwise_equal, rows, sgd, trainer, weights

Double = partial(Regression, torch.float64)


class Ragged(nn.Module):
    """Averages the loss over the items that are not masked; a batch may have none."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1, dtype=torch.float64)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        features, target = batch
        mask = features[:, 0] > 0
        errors = (self.layer(features) - target).square().reshape(-1)[mask]
        num_items = int(mask.sum())
        return {"loss": errors.sum() / max(num_items, 1), "num_items": num_items}


def relative(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    return max(float((ours[name] - theirs[name]).norm() / theirs[name].norm()) for name in theirs)


def train(
    rank: int, model: Any, optimizer: Any, batch_size: int, accum: int, steps: int = 12
) -> tuple[dict[str, Tensor], dict[str, float], list[dict[str, float]]]:
    """Train and validate. Return the weights, the last metrics, and the metrics of the validations."""
    loop = TrainingLoop(num_steps=steps, grad_accum_steps=accum, eval_frequency=5)
    ours = trainer(loop, model=model, optimizer=optimizer, log_every_n_steps=4, precision=Precision())
    data = Loader(rows(23, torch.float64), batch_size=batch_size, shuffle=True)
    result = ours.fit(data, Loader(rows(9, torch.float64), batch_size=4))
    return weights(ours), dict(result.metrics), [ours.validate(Loader(rows(7, torch.float64), batch_size=3))]


@pytest.mark.parametrize("world_size", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("batch_size", "accum"), [(8, 1), (4, 3), (2, 2), (1, 4), (5, 2)])
@pytest.mark.parametrize("model", [Double, Ragged])
def test_weights_and_means_are_those_of_one_process(world_size: int, batch_size: int, accum: int, model: Any) -> None:
    arguments = (model, sgd if model is Ragged else adamw, batch_size, accum)
    alone, metrics, validated = train(0, *arguments)
    for own, own_metrics, own_validated in on_ranks(world_size, train, *arguments):
        assert relative(own, alone) < 1e-12
        assert own_metrics == pytest.approx(metrics, rel=1e-12)
        assert own_validated[0] == pytest.approx(validated[0], rel=1e-12)


class Rows(Callback):
    """Notes the first feature of each row that this process trains on, by step."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[float]]] = []

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, batch_idx: int) -> None:
        if not trainer.is_padding:
            self.seen.append((trainer.global_step, batch[0][:, 0].tolist()))


def seen_rows(rank: int, num_workers: int) -> list[tuple[int, list[float]]]:
    noted = Rows()
    ours = trainer(TrainingLoop(num_steps=9), callbacks=[noted])
    ours.fit(Loader(rows(23), batch_size=5, shuffle=True, num_workers=num_workers))
    return noted.seen


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1])
def test_each_row_of_a_micro_batch_is_read_by_one_process(num_workers: int) -> None:
    alone = dict(seen_rows(0, num_workers))
    for world_size in (2, 3, 4):
        found = [dict(each) for each in on_ranks(world_size, seen_rows, num_workers)]
        for step, whole in alone.items():
            assert [each.get(step, []) for each in found] == [whole[rank::world_size] for rank in range(world_size)]


class Crashes(Callback):
    """Raises in every process after step 7."""

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 7:
            raise RuntimeError("crashed")


def resumable(rank: int, run_dir: Path, how: str = "straight", dropout: float = 0.3) -> dict[str, Tensor]:
    """Train 10 steps, or crash after step 7, or resume from the checkpoint of step 6."""
    loop = TrainingLoop(num_steps=10, grad_accum_steps=2, eval_frequency=4)
    ours = trainer(
        loop,
        model=partial(Regression, torch.float64, dropout),
        optimizer=adamw,
        checkpoint=Checkpointing(every_n_steps=3),
        callbacks=[Crashes()] if how == "crash" else [],
        loggers=[JSONLinesLogger()],
        log_every_n_steps=4,
        run_dir=run_dir,
    )
    data = Loader(rows(23, torch.float64), batch_size=3, shuffle=True)
    with pytest.raises(RuntimeError, match="crashed") if how == "crash" else nullcontext():
        ours.fit(data, Loader(rows(9, torch.float64), batch_size=4), ckpt_path="last" if how == "resume" else None)
    return weights(ours)


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_resume_with_the_same_number_of_processes_is_bitwise(world_size: int, tmp_path: Path) -> None:
    straight = on_ranks(world_size, resumable, tmp_path / "straight")
    on_ranks(world_size, resumable, tmp_path / "cut", "crash")
    resumed = on_ranks(world_size, resumable, tmp_path / "cut", "resume")
    for ours, theirs in zip(resumed, straight, strict=True):
        assert is_bitwise_equal(ours, straight[0]) and is_bitwise_equal(theirs, straight[0])
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "straight" / "metrics.jsonl").read_bytes()
    assert read_checkpoint(tmp_path / "cut" / "checkpoints" / "step_00000010").manifest.world_size == world_size


def test_two_runs_of_the_same_processes_are_bitwise_equal(tmp_path: Path) -> None:
    first, second = (on_ranks(2, resumable, tmp_path / name)[0] for name in ("a", "b"))
    assert is_bitwise_equal(first, second)


def metrics_in(run_dir: Path) -> dict[tuple[int, str], float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {(line["step"], line["name"]): line["value"] for line in lines}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4), (4, 2), (4, 3), (3, 1)])
def test_another_number_of_processes_resumes_a_run(before: int, after: int, tmp_path: Path) -> None:
    straight = on_ranks(1, resumable, tmp_path / "straight", "straight", 0.0)[0]
    on_ranks(before, resumable, tmp_path / "cut", "crash", 0.0)
    resumed = on_ranks(after, resumable, tmp_path / "cut", "resume", 0.0)
    assert all(relative(each, straight) < 1e-10 for each in resumed)
    assert metrics_in(tmp_path / "cut") == pytest.approx(metrics_in(tmp_path / "straight"), rel=1e-10)


class Stops(Callback):
    """Asks one process to stop, by a signal or by `Trainer.stop`."""

    def __init__(self, rank: int, how: str) -> None:
        self._rank, self._how = rank, how

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 4 and int(os.environ["RANK"]) == self._rank:
            if self._how == "stop":
                trainer.stop("enough")
            else:
                os.kill(os.getpid(), signal.SIGTERM)


def stopped(rank: int, run_dir: Path, who: int, how: str) -> tuple[int, str, set[int]]:
    ours = trainer(
        TrainingLoop(num_steps=50),
        callbacks=[Stops(who, how)],
        checkpoint=Checkpointing(),
        loggers=[],
        run_dir=run_dir,
    )
    try:
        state = ours.fit(Loader(rows(23), batch_size=4)).state
    except SystemExit as exit:
        state = f"exit {exit.code}"
    return ours.global_step, state, steps_in(run_dir)


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("how", ["signal", "stop"])
def test_a_request_in_one_process_stops_all_at_the_same_step(who: int, how: str, tmp_path: Path) -> None:
    results = on_ranks(2, stopped, tmp_path / "run", who, how)
    steps = {step for step, _, _ in results}
    assert steps == {5}  # one step after the request
    assert all(saved == steps for _, _, saved in results)
    expected = {"stopped"} if how == "stop" else {"interrupted", "exit 143"}
    assert {state for _, state, _ in results} == expected


class Uneven(IterableDataset[Any]):
    """Reads other rows in each process, and another number of them."""

    def __init__(self, counts: tuple[int, ...], has_length: bool) -> None:
        self._count = counts[int(os.environ["RANK"])]
        if has_length:
            self.__class__ = UnevenOfKnownLength

    def __iter__(self) -> Iterator[Any]:
        return iter([rows(60, torch.float64)[7 * int(os.environ["RANK"]) + i] for i in range(self._count)])


class UnevenOfKnownLength(Uneven):
    def __len__(self) -> int:
        return self._count


def uneven(rank: int, counts: tuple[int, ...], has_length: bool) -> tuple[int, int, dict[str, Tensor]]:
    noted = Rows()
    ours = trainer(
        TrainingLoop(num_epochs=2, steps_per_epoch=None if has_length else 3, grad_accum_steps=2),
        model=Double,
        callbacks=[noted],
    )
    ours.fit(DataLoader(Uneven(counts, has_length), batch_size=2))
    return ours.global_step, sum(len(values) for _, values in noted.seen), weights(ours)


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("counts", [(5, 8), (8, 1), (3, 0), (0, 7), (4, 4)])
def test_uneven_dataloaders_neither_hang_nor_drop_rows(counts: tuple[int, ...], has_length: bool) -> None:
    results = on_ranks(2, uneven, counts, has_length)
    assert len({step for step, _, _ in results}) == 1
    assert is_bitwise_equal(results[0][2], results[1][2])
    if has_length:
        assert [num_rows for _, num_rows, _ in results] == [2 * count for count in counts]


class Breaks(Callback):
    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 2 and int(os.environ["RANK"]) == 1:
            raise RuntimeError("this process is broken")


def breaking(rank: int) -> None:
    trainer(TrainingLoop(num_steps=5), callbacks=[Breaks()]).fit(Loader(rows(20), batch_size=4))


def test_the_other_processes_end_when_one_process_ends() -> None:
    results = outcomes(2, breaking)
    assert "this process is broken" in results[1][1]
    assert not results[0][0] and is_peer_error(RuntimeError(results[0][1])), results[0][1]


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (self.used(batch[0]) - batch[1]).square().mean()


def unused(rank: int) -> None:
    trainer(TrainingLoop(num_steps=3), model=Unused).fit(Loader(rows(20), batch_size=4))


def test_an_unused_parameter_is_refused_by_the_name_of_the_setting() -> None:
    with pytest.raises(Died, match=r"A parameter of the model got no gradient .* use device.unused_parameters=true"):
        on_ranks(2, unused)


class Thaws(Callback):
    """Freezes the first layer until step 2."""

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, batch_idx: int) -> None:
        model.layers[0].requires_grad_(trainer.global_step >= 2)


def thawed(rank: int) -> dict[str, Tensor]:
    ours = trainer(TrainingLoop(num_steps=5), model=Double, callbacks=[Thaws()])
    ours.fit(Loader(rows(20, torch.float64), batch_size=4))
    return weights(ours)


@pytest.mark.parametrize("world_size", [2])
def test_parameters_may_be_frozen_and_trained_later(world_size: int) -> None:
    alone = thawed(0)
    assert all(relative(each, alone) < 1e-12 for each in on_ranks(world_size, thawed))


class Counting(nn.Module):
    """Has a buffer that depends on the rows of this process, and that its training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * batch[0].mean(0)
        return (self.layer(batch[0] - self.mean) - batch[1]).square().mean()


def counted(rank: int, eval_frequency: int | None, every: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    loop = TrainingLoop(num_steps=6, grad_accum_steps=2, eval_frequency=eval_frequency)
    ours = trainer(loop, model=Counting, callbacks=[])
    ours.fit(Loader(rows(20), batch_size=4), Loader(rows(8), batch_size=4) if eval_frequency else None)
    own = weights(ours)
    ours.validate(Loader(rows(8), batch_size=4))
    return own, weights(ours)


def test_validation_does_not_change_training_with_buffers_of_each_process() -> None:
    never = on_ranks(2, counted, None, 1)
    often = on_ranks(2, counted, 1, 1)
    assert torch.equal(never[0][0]["layer.weight"], often[0][0]["layer.weight"])
    assert torch.equal(never[0][1]["mean"], never[1][1]["mean"])


def test_buffers_are_those_of_process_0() -> None:
    features = rows(20).tensors[0]
    mean = torch.zeros(4)
    for micro_batch in range(10):  # 6 steps are 2 passes with 5 micro-batches each
        first = 4 * (micro_batch % 5)
        mean = 0.9 * mean + 0.1 * features[first : first + 4 : 2].mean(0)
    found = on_ranks(2, counted, None, 1)
    assert all(torch.allclose(each["mean"], mean) for each in (found[0][0], found[0][1], found[1][1]))


def num_sums(rank: int, accum: int) -> int:
    """Return how often tensors are summed over the processes in a training of 3 steps."""
    ours = trainer(TrainingLoop(num_steps=3, grad_accum_steps=accum), log_every_n_steps=100)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        ours.fit(Loader(rows(48), batch_size=4))
    return sum(event.count for event in profile.key_averages() if event.key == "gloo:all_reduce")


def test_gradients_are_summed_once_a_step() -> None:
    for once, often in zip(on_ranks(2, num_sums, 1), on_ranks(2, num_sums, 4), strict=True):
        assert once == often > 3


def wrong_count(rank: int) -> None:
    from loopwright.device import Device

    trainer(TrainingLoop(num_steps=1), device=Device(kind="cpu", num_processes=3))


def test_another_number_of_processes_than_was_started_is_refused() -> None:
    with pytest.raises(Died, match=r"num_processes=3: expected 2, because .* started 2 on this machine; leave it out"):
        on_ranks(2, wrong_count)


def only_validates(rank: int) -> dict[str, float]:
    ours = trainer(ValidationLoop(), model=Double, optimizer=None)
    return ours.validate(Loader(rows(11, torch.float64), batch_size=4))


def test_a_validation_alone_is_shared() -> None:
    alone = only_validates(0)
    assert all(each == pytest.approx(alone, rel=1e-12) for each in on_ranks(3, only_validates))


class Overflowing(Regression):
    """Returns an infinite loss in the process that has one of some rows."""

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        outputs = super().forward(batch)
        has_row = (batch[0][:, 0].abs() > 1.6).any() and self.training
        return outputs | {"loss": outputs["loss"] * (float("inf") if has_row else 1.0)}


def in_precision(rank: int, dtype: str) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any] | None]:
    ours = trainer(
        TrainingLoop(num_steps=12, grad_accum_steps=2),
        model=Overflowing if dtype == "fp16" else Regression,
        precision=Precision(dtype, max_gradient_norm=1.0),
        log_every_n_steps=4,
    )
    metrics = ours.fit(Loader(rows(40), batch_size=3, shuffle=True)).metrics
    scaling = ours._parts.scaling
    return weights(ours), dict(metrics), None if scaling is None else scaling.state_dict()


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.01), ("fp16", 0.01), ("bf16_pure", 0.05)])
@pytest.mark.filterwarnings("ignore")
def test_every_process_has_the_same_weights_scale_and_skipped_updates(dtype: str, tolerance: float) -> None:
    alone, metrics, scaling = in_precision(0, dtype)
    results = on_ranks(2, in_precision, dtype)
    assert is_bitwise_equal(results[0][0], results[1][0])
    for own, own_metrics, own_scaling in results:
        assert own_scaling == scaling
        assert own_metrics.get("train/skipped_updates") == metrics.get("train/skipped_updates")
        assert relative({k: v.float() for k, v in own.items()}, {k: v.float() for k, v in alone.items()}) < tolerance
    assert (metrics.get("train/skipped_updates", 0) > 2) == (dtype == "fp16")
