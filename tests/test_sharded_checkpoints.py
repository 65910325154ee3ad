"""Checkpoints that several processes write together: resumes, other numbers of processes, faults.

The processes are forked, and gloo connects them.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import loopwright.checkpoint.write as writing
from loopwright import Callback, Checkpointing, TrainingLoop
from loopwright.callbacks import ExponentialMovingAverage
from loopwright.checkpoint import read_checkpoint, steps_in, verify_checkpoint, weights_digest
from loopwright.data import Loader
from loopwright.device import Device
from loopwright.errors import CheckpointError, SaveError
from loopwright.experiment.console.command_line import read_command_line
from loopwright.experiment.verbs.export_verb import export
from loopwright.loggers import JSONLinesLogger
from ranked import on_ranks
from test_sharded import Blocks, gathered
from tiny import adamw, is_bitwise_equal, largest_difference, rows, trainer

pytestmark = pytest.mark.slow

DEVICES = {"fsdp": Device(kind="cpu", strategy="fsdp"), "ddp": "cpu"}


class Crashes(Callback):
    """Raises in every process after step 7."""

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 7:
            raise RuntimeError("crashed")


def build(run_dir: Path, strategy: str, dropout: float = 0.0, crashes: bool = False, **saving: Any) -> Any:
    return trainer(
        TrainingLoop(num_steps=10, grad_accum_steps=2, eval_frequency=4),
        model=partial(Blocks, dropout=dropout),
        optimizer=adamw,
        device=DEVICES[strategy],
        checkpoint=Checkpointing(every_n_steps=3, **saving),
        callbacks=[ExponentialMovingAverage(0.8), *([Crashes()] if crashes else [])],
        loggers=[JSONLinesLogger()],
        log_every_n_steps=4,
        run_dir=run_dir,
    )


def run(rank: int, run_dir: Path, strategy: str, how: str = "straight", dropout: float = 0.0, **saving: Any) -> Any:
    """Train 10 steps, or crash after step 7, or resume from the checkpoint of step 6."""
    ours = build(run_dir, strategy, dropout, how == "crash", **saving)
    data = Loader(rows(23, torch.float64), batch_size=3, shuffle=True)
    with pytest.raises(RuntimeError, match="crashed") if how == "crash" else nullcontext():
        ours.fit(data, Loader(rows(9, torch.float64), batch_size=4), ckpt_path="last" if how == "resume" else None)
    digest = ours.weights_digest()
    return gathered(ours), digest, ours.validate(Loader(rows(7, torch.float64), batch_size=3))


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("saving", [{}, {"background": True}])
def test_a_resume_with_the_same_number_of_processes_is_bitwise(
    world_size: int, saving: dict[str, Any], tmp_path: Path
) -> None:
    act = partial(run, **saving)
    straight = on_ranks(world_size, act, tmp_path / "straight", "fsdp", "straight", 0.3)
    on_ranks(world_size, act, tmp_path / "cut", "fsdp", "crash", 0.3)
    resumed = on_ranks(world_size, act, tmp_path / "cut", "fsdp", "resume", 0.3)
    for ours, theirs in zip(resumed, straight, strict=True):
        assert is_bitwise_equal(ours[0], straight[0][0]) and is_bitwise_equal(theirs[0], straight[0][0])
        assert ours[2] == theirs[2]
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "straight" / "metrics.jsonl").read_bytes()
    manifest = verify_checkpoint(tmp_path / "cut" / "checkpoints" / "step_00000010")
    assert manifest.shards == manifest.world_size == world_size


def metrics_in(run_dir: Path) -> dict[tuple[int, str], float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {(line["step"], line["name"]): line["value"] for line in lines}


PAIRS = [
    ("fsdp", 2, "fsdp", 3), ("fsdp", 3, "fsdp", 2), ("fsdp", 4, "fsdp", 2), ("fsdp", 2, "fsdp", 4),
    ("fsdp", 4, "ddp", 1), ("ddp", 1, "fsdp", 4), ("fsdp", 2, "ddp", 3), ("ddp", 3, "fsdp", 2),
    ("fsdp", 2, "ddp", 1), ("ddp", 1, "fsdp", 3),
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "before", "other", "after"), PAIRS)
def test_another_number_of_processes_resumes_a_run(
    strategy: str, before: int, other: str, after: int, tmp_path: Path
) -> None:
    straight = on_ranks(1, run, tmp_path / "straight", "ddp")[0]
    on_ranks(before, run, tmp_path / "cut", strategy, "crash")
    resumed = on_ranks(after, run, tmp_path / "cut", other, "resume")
    for weights, _, validated in resumed:
        assert largest_difference(weights, straight[0]) < 1e-10
        assert validated == pytest.approx(straight[2], rel=1e-10)
    assert metrics_in(tmp_path / "cut") == pytest.approx(metrics_in(tmp_path / "straight"), rel=1e-10)


def saved(folder: Path, world_size: int, strategy: str = "fsdp") -> list[Any]:
    return on_ranks(world_size, run, folder, strategy)


def test_one_process_reads_what_several_have_written(tmp_path: Path) -> None:
    (weights, digest, validated), *_ = saved(tmp_path / "run", 3)
    folder = tmp_path / "run" / "checkpoints" / "step_00000010"
    checkpoint = read_checkpoint(folder)
    assert is_bitwise_equal(checkpoint.state["model"], weights)
    assert {type(each) for each in checkpoint.state["optimizer"]["state"][0].values()} == {Tensor}
    assert weights_digest(checkpoint.state["model"]) == digest
    assert read_checkpoint(folder, weights_only=True).state["model"].keys() == weights.keys()
    alone = build(tmp_path / "other", "ddp").validate(Loader(rows(7, torch.float64), batch_size=3), ckpt_path=folder)
    assert alone == pytest.approx(validated, rel=1e-10)
    output = tmp_path / "weights.safetensors"
    assert export(read_command_line(["export", str(folder), f"output={output}"])) == 0
    assert is_bitwise_equal(load_file(output), weights)


def digest_alone(rank: int, folder: Path, strategy: str) -> tuple[str, dict[str, float], dict[str, Tensor]]:
    """Load the weights of a checkpoint, validate another one, and return what is in memory afterwards."""
    ours = build(folder.parent.parent.parent / f"from_{strategy}", strategy)
    data = Loader(rows(23, torch.float64), batch_size=3, shuffle=True)
    before = ours.weights_digest()
    validated = ours.validate(Loader(rows(7, torch.float64), batch_size=3), ckpt_path=folder)
    assert ours.weights_digest() == before
    ours.save_checkpoint(folder.parent.parent.parent / f"by_hand_{strategy}")
    ours.fit(data, init_from=folder, init_optimizer=True)
    return before, validated, gathered(ours)


def test_weights_have_one_digest_for_every_number_of_processes(tmp_path: Path) -> None:
    _, _, expected = saved(tmp_path / "run", 1, "ddp")[0]
    folder = tmp_path / "run" / "checkpoints" / "step_00000010"
    found = [*on_ranks(1, digest_alone, folder, "ddp")[:1], *on_ranks(3, digest_alone, folder, "fsdp")[:1]]
    assert found[0][0] == found[1][0]
    assert all(each[1] == pytest.approx(expected, rel=1e-10) for each in found)
    assert largest_difference(found[0][2], found[1][2]) < 1e-10
    one, several = (read_checkpoint(tmp_path / f"by_hand_{name}").state for name in ("ddp", "fsdp"))
    assert is_bitwise_equal(one["model"], several["model"])


def failing(rank: int, run_dir: Path, who: int, **saving: Any) -> tuple[str, set[int], list[str]]:
    """Train with a process that cannot write its files. Return the error, the saved steps, and files left behind."""
    if rank == who:
        whole = os.fsync

        def full(descriptor: int) -> None:
            if "step_00000006" in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            whole(descriptor)

        writing.os = SimpleNamespace(**{**vars(os), "fsync": full})  # type: ignore[assignment]
    ours = build(run_dir, "fsdp", **saving)
    try:
        ours.fit(Loader(rows(23, torch.float64), batch_size=3), Loader(rows(9, torch.float64), batch_size=4))
        error = ""
    except SaveError as raised:
        error = str(raised)
    return error, steps_in(run_dir), [path.name for path in (run_dir / "checkpoints").iterdir() if path.name[0] == "."]


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("background", [False, True])
def test_a_process_that_cannot_write_stops_all_with_one_error(who: int, background: bool, tmp_path: Path) -> None:
    results = on_ranks(2, partial(failing, background=background), tmp_path / "run", who)
    assert results[0] == results[1]
    error, steps, left = results[0]
    assert "step_00000006: not saved: No space left on device; " in error and "\n" not in error
    assert (steps, left) == ({3, 4}, [])


def test_training_continues_after_a_failed_save_if_the_settings_say_so(tmp_path: Path) -> None:
    act = partial(failing, background=True, on_save_error="continue")
    assert on_ranks(2, act, tmp_path / "run", 1) == [("", {3, 4, 8, 9, 10}, [])] * 2


class Uneven(Callback):
    """Has a sharded tensor of another shape in each process."""

    def on_save_checkpoint(self, trainer: Any, state_dict: dict[str, Any]) -> None:
        names = list(state_dict["model"])[: 2 + trainer.rank]
        state_dict["more"] = {name: state_dict["model"][name].detach().clone() for name in names}


def uneven(rank: int, run_dir: Path) -> str:
    ours = trainer(TrainingLoop(num_steps=1), model=Blocks, device=DEVICES["fsdp"], callbacks=[Uneven()])
    with pytest.raises(SaveError) as caught:
        ours.save_checkpoint(run_dir / "made")
    return str(caught.value)


def test_states_that_differ_between_processes_are_not_saved(tmp_path: Path) -> None:
    first, second = on_ranks(2, uneven, tmp_path)
    assert first == second and "the processes have different names or shapes of sharded tensors" in first
    assert list(tmp_path.iterdir()) == []


def read_damaged(rank: int, folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        build(folder.parent.parent.parent / "other", "fsdp").fit(
            Loader(rows(23, torch.float64), batch_size=3, shuffle=True), init_from=folder
        )
    return str(caught.value)


def test_a_damaged_shard_is_refused_by_every_process(tmp_path: Path) -> None:
    saved(tmp_path / "run", 2)
    folder = tmp_path / "run" / "checkpoints" / "step_00000010"
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    first, second = on_ranks(2, read_damaged, folder)
    assert first == second and file.name in first and "damaged" in first
