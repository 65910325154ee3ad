"""Compares the cost of a step of the `Trainer` in two processes with a hand-written loop with DistributedDataParallel.

    python bench/distributed.py                        # call counts, ratios of CPU time, and start to first step
    python bench/distributed.py --pairs 31 --only GPT  # more pairs, fewer models

Two processes, with one thread each, train the same model alternately with the `Trainer` and with the hand-written loop.
A ratio is computed from the CPU time of both processes, without the first steps, in which
`DistributedDataParallel` chooses its buckets. The hand-written loop is also compared with itself, which shows the
variation of the times on this machine. The batches are lists of ready tensors. The calls of Python functions and C
functions from one forward to the next are counted in process 0 with `sys.setprofile`.

The start is measured from a command to the first step of the default experiment: ``loopwright device.num_processes=2``,
and ``torchrun`` of a minimal script. CPU times include all processes.
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import json
import os
import platform
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import startup
import torch
import torch.distributed as dist
from overhead import Mlp, median_interval
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from loopwright import Callback, Trainer, TrainingLoop
from loopwright.models import GPT

WORLD_SIZE = 2
NUM_FIRST_STEPS = 2  # steps that are not measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, its batches and the number of measured steps.

    Args:
        make: function that builds the model.
        batch: function that returns a batch with a number of rows.
        num_rows: rows of a process in each step.
        num_steps: measured steps of a training.
    """

    make: Callable[[], nn.Module]
    batch: Callable[[int], Any]
    num_rows: int
    num_steps: int


def _features(num_rows: int) -> tuple[Tensor, Tensor]:
    return torch.randn(num_rows, 64), torch.randint(10, (num_rows,))


def _tokens(num_rows: int) -> dict[str, Tensor]:
    return {"tokens": torch.randint(256, (num_rows, 129))}


def gpt(width: int, num_layers: int) -> Callable[[], nn.Module]:
    """Return a function that builds a GPT with context 128 and no dropout."""
    return functools.partial(GPT, context_length=128, width=width, num_layers=num_layers, num_heads=4, dropout=0.0)


CASES: Mapping[str, Case] = {
    "MLP, 5 thousand": Case(make=Mlp, batch=_features, num_rows=16, num_steps=300),
    "GPT, 0.8 million": Case(make=gpt(128, 4), batch=_tokens, num_rows=4, num_steps=12),
    "GPT, 10.8 million": Case(make=gpt(384, 6), batch=_tokens, num_rows=1, num_steps=4),
}


class _Clock(Callback):
    """Calls a function when the measured steps begin and when they have ended."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, batch_idx: int) -> None:
        """Begin after the first steps."""
        if batch_idx == NUM_FIRST_STEPS:
            self._tick()

    def on_train_end(self, trainer: Any, model: Any, loop: Any, loop_idx: int) -> None:
        """End after the last step."""
        self._tick()


def by_hand(case: Case, batches: list[Any], tick: Callable[[], None] | None) -> nn.Module:
    """Train with the hand-written loop. Each process has its own batches of ``num_rows`` rows."""
    torch.manual_seed(0)
    model = case.make()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-4)
    for index, batch in enumerate(batches):
        if index == NUM_FIRST_STEPS and tick is not None:
            tick()
        optimizer.zero_grad()
        outputs = wrapped(batch)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        loss.backward()
        optimizer.step()
    if tick is not None:
        tick()
    return model


def with_trainer(case: Case, batches: list[Any], tick: Callable[[], None] | None) -> nn.Module:
    """Train with the `Trainer`, which divides batches of twice as many rows over the two processes."""
    torch.manual_seed(0)
    trainer = Trainer(
        model=case.make,
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-4),
        loop=TrainingLoop(num_steps=len(batches)),
        device="cpu",
        callbacks=[] if tick is None else [_Clock(tick)],
        loggers=[],
        log_every_n_steps=10**9,
    )
    trainer.fit(batches)
    return trainer.model


Train = Callable[[Case, list[Any], Callable[[], None] | None], nn.Module]


def cpu_seconds(train: Train, case: Case) -> float:
    """Return the CPU seconds of the measured steps in this process."""
    size = case.num_rows * (WORLD_SIZE if train is with_trainer else 1)
    batches = [case.batch(size)] * (NUM_FIRST_STEPS + case.num_steps)
    times: list[float] = []
    gc.collect()
    dist.barrier()
    train(case, batches, lambda: times.append(time.process_time()))
    return times[1] - times[0]


def rounds(rank: int, case: Case, num_rounds: int) -> list[list[float]]:
    """Return the CPU seconds in this process of trainings with the `Trainer`, by hand, and by hand again, per round."""
    trainings: list[Train] = [with_trainer, by_hand, by_hand]
    for train in trainings[:2]:
        cpu_seconds(train, case)
    found = []
    for index in range(num_rounds):
        seconds = [0.0, 0.0, 0.0]
        for offset in range(3):  # each training is first, second and third equally often
            which = (index + offset) % 3
            seconds[which] = cpu_seconds(trainings[which], case)
        found.append(seconds)
    return found


def calls_per_step(rank: int, train: Train, case: Case) -> list[int]:
    """Return the number of function calls of process 0 from each forward to the next, without the first steps."""
    forward_code = case.make().forward.__code__
    marks: list[int] = []
    num_calls = 0

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal num_calls
        if event in ("call", "c_call"):
            num_calls += 1
            if event == "call" and frame.f_code is forward_code:
                marks.append(num_calls)

    batches = [case.batch(case.num_rows * (WORLD_SIZE if train is with_trainer else 1))] * 16
    gc.collect()
    gc.disable()  # a collection during the training would call finalizers
    sys.setprofile(count)
    try:
        train(case, batches, None)
    finally:
        sys.setprofile(None)
        gc.enable()
    return [later - earlier for earlier, later in itertools.pairwise(marks[-10:-2])]


def in_processes(act: Callable[..., Any], *args: Any) -> list[Any]:
    """Call ``act(rank, *args)`` in forked processes, which gloo connects, and return the results by rank."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(WORLD_SIZE):
            process_id = os.fork()
            if not process_id:
                _be_process(rank, port, Path(folder), act, args)
            children.append(process_id)
        for process_id in children:
            _, status = os.waitpid(process_id, 0)
            if status:
                raise RuntimeError(f"A process ended with exit code {os.waitstatus_to_exitcode(status)}.")
        return [json.loads((Path(folder) / str(rank)).read_text()) for rank in range(WORLD_SIZE)]


def _be_process(rank: int, port: int, folder: Path, act: Callable[..., Any], args: tuple[Any, ...]) -> None:
    code = 1
    try:
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD_SIZE, "LOCAL_WORLD_SIZE": WORLD_SIZE}
        os.environ |= {name: str(value) for name, value in variables.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        dist.init_process_group("gloo")
        (folder / str(rank)).write_text(json.dumps(act(rank, *args)))
        dist.barrier()
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def report(name: str, case: Case, num_rounds: int) -> None:
    """Print the CPU time of a step of both processes, and the ratios of the CPU times of each round."""
    results = in_processes(rounds, case, num_rounds)
    summed = [[sum(each) for each in zip(*found, strict=True)] for found in zip(*results, strict=True)]
    columns = [*zip(*summed, strict=True)]
    ours, hand = (1e3 / case.num_steps * statistics.median(column) for column in columns[:2])
    for what, column in (("Trainer / by hand", columns[0]), ("by hand / by hand", columns[2])):
        median, low, high = median_interval([one / other for one, other in zip(column, columns[1], strict=True)])
        print(f"{name:18} {what}  {ours:8.2f} ms, {hand:8.2f} ms  {median:.3f}  ({low:.3f} to {high:.3f})", flush=True)


# The minimal script for torchrun: the script of `startup.py`, with a process group.
RAW = startup.RAW.replace(
    "torch.manual_seed(0)",
    "torch.manual_seed(0)\ntorch.set_num_threads(1)\ntorch.distributed.init_process_group('gloo')",
).replace("optimizer = ", "model = nn.parallel.DistributedDataParallel(model)\noptimizer = ")


def report_start(num_pairs: int) -> None:
    """Compare the start of two processes by ``loopwright`` and by ``torchrun``, up to the end of their first step."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "leave.py").write_text(startup.LEAVE)
        (work / "raw.py").write_text(RAW)
        (work / "own" / "callbacks").mkdir(parents=True)
        (work / "own" / "callbacks" / "leave.yaml").write_text("leave:\n  _target_: leave.Leave\n")
        launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={WORLD_SIZE}", "--standalone"]
        command = [sys.executable, "-m", "loopwright", "--config-dir=own", "--trust=leave", "callbacks=[default,leave]"]
        ours, raw = [*command, f"device.num_processes={WORLD_SIZE}"], [*launcher, "raw.py"]
        times: list[tuple[tuple[float, float], tuple[float, float]]] = []
        for index in range(num_pairs + 1):
            order = (raw, ours) if index % 2 else (ours, raw)
            seconds = {each[2]: startup.seconds_of(each, work, check=False) for each in order}
            times.append((seconds["loopwright"], seconds["torch.distributed.run"]))
    for kind, name in enumerate(("wall", "CPU")):
        columns = [(one[kind], other[kind]) for one, other in times[1:]]
        ours_median, raw_median = (statistics.median(each) for each in zip(*columns, strict=True))
        median, low, high = median_interval([one / other for one, other in columns])
        times_of = f"loopwright {ours_median:.2f} s  torchrun {raw_median:.2f} s"
        print(f"start to first step, {name:4}  {times_of}  {median:.3f}  ({low:.3f} to {high:.3f})", flush=True)


def main() -> None:
    """Measure and print the call counts, the ratios of CPU times, and the start."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15, help="number of pairs of trainings to time")
    parser.add_argument("--only", default="", help="measure only models whose name contains this text, or only: start")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, one thread")
    for name, case in CASES.items():
        if options.only not in name:
            continue
        hand, ours = (in_processes(calls_per_step, train, case)[0] for train in (by_hand, with_trainer))
        print(f"{name:18} calls per step: by hand {min(hand)} to {max(hand)}, Trainer {min(ours)} to {max(ours)}")
        report(name, case, options.pairs)
    if options.only in "start":
        report_start(options.pairs)


if __name__ == "__main__":
    main()
