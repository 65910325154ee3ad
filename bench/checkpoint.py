"""Compares the time to save a checkpoint of 500 MB with the times to write and to hash the same tensors.

    python bench/checkpoint.py               # 11 rounds, in a temporary folder of the working directory
    python bench/checkpoint.py --rounds 21 --folder /where/checkpoints/go

The checkpoint contains a model and the two moments of its AdamW. Each round measures four actions::

    save               a foreground save, which hashes and syncs its files
    save_file          `safetensors.torch.save_file` of the same tensors and an ``fsync`` of the file, without hashing
    hash               SHA-256 of the same bytes
    save_file again    the action ``save_file`` again, which shows the variation between two measurements

The order of the actions rotates from round to round. Between two actions, the files are removed and the disk is synced.
A save hashes and writes in parallel, so its wall time depends on whether a second core is free. Before and after the
rounds, the benchmark therefore prints the number of cores that two computing threads get.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from loopwright.checkpoint import write_checkpoint
from loopwright.checkpoint.safetensors_layout import tensor_bytes

NUM_LAYERS = 24
WIDTH = 659  # four square float32 matrices per layer, and two moments of each matrix: 500 MB


def make_state() -> dict[str, Any]:
    """Return the state of a run at step 9: a model of square matrices, the state of its AdamW, and the position."""
    generator = torch.Generator().manual_seed(0)
    names = [f"layers.{layer}.{kind}" for layer in range(NUM_LAYERS) for kind in ("query", "key", "value", "output")]

    def tensors() -> list[Tensor]:
        return [torch.randn(WIDTH, WIDTH, generator=generator) for _ in names]

    moments = enumerate(zip(tensors(), tensors(), strict=True))
    state = {index: {"step": torch.tensor(9.0), "exp_avg": one, "exp_avg_sq": two} for index, (one, two) in moments}
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "params": [*range(len(names))]}
    return {
        "model": dict(zip(names, tensors(), strict=True)),
        "optimizer": {"state": state, "param_groups": [group]},
        "position": {"global_step": 9},
    }


def all_tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return all tensors of the model and the optimizer in one mapping."""
    moments = {
        f"{index}.{name}": tensor
        for index, each in state["optimizer"]["state"].items()
        for name, tensor in each.items()
    }
    return {**state["model"], **moments}


def save_and_sync(tensors: dict[str, Tensor], file: Path) -> None:
    """Write the tensors with `save_file`, and sync the file to the disk."""
    save_file(tensors, file)
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def hash_all(tensors: dict[str, Tensor]) -> None:
    """Compute the SHA-256 digest of all tensors on one core."""
    hasher = hashlib.sha256()
    for tensor in tensors.values():
        hasher.update(tensor_bytes(tensor))


def seconds_of(act: Callable[[Path], object], folder: Path) -> tuple[float, float]:
    """Return the wall seconds and the CPU seconds of one action in an empty folder."""
    target = folder / "target"
    target.mkdir()
    os.sync()
    start, cpu_start = time.perf_counter(), time.process_time()
    act(target)
    seconds = time.perf_counter() - start, time.process_time() - cpu_start
    shutil.rmtree(target)
    return seconds


def num_cores_for_two() -> float:
    """Return the number of cores that two computing threads get: their CPU time divided by the wall time."""
    data = bytes(1 << 28)
    threads = [threading.Thread(target=hashlib.sha256, args=(data,)) for _ in range(2)]
    start, cpu_start = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.process_time() - cpu_start) / (time.perf_counter() - start)


def quartiles(ratios: list[float]) -> str:
    """Format the median with the first and third quartiles."""
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Measure all actions, and print the medians of their times and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="number of measurements of each action")
    parser.add_argument(
        "--folder", type=Path, default=Path.cwd(), help="folder for the checkpoints, on the disk to measure"
    )
    options = parser.parse_args()
    state = make_state()
    tensors = all_tensors(state)
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    acts: dict[str, Callable[[Path], object]] = {
        "save": lambda folder: write_checkpoint(folder / "step_00000009", state, step=9),
        "save_file": lambda folder: save_and_sync(tensors, folder / "all.safetensors"),
        "hash": lambda folder: hash_all(tensors),
        "save_file again": lambda folder: save_and_sync(tensors, folder / "all.safetensors"),
    }
    rounds: list[dict[str, tuple[float, float]]] = []
    num_cores = [num_cores_for_two()]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for act in acts.values():
            seconds_of(act, Path(folder))
        for number in range(options.rounds):
            names = [*acts][number % len(acts) :] + [*acts][: number % len(acts)]
            rounds.append({name: seconds_of(acts[name], Path(folder)) for name in names})
    num_cores.append(num_cores_for_two())
    print(
        f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores"
    )
    print(f"{num_bytes / 1e6:.0f} MB in {len(tensors)} tensors, {options.rounds} rounds")
    print(f"Two computing threads get {num_cores[0]:.1f} cores before, {num_cores[1]:.1f} after.")
    for index, what in enumerate(("wall", "CPU")):
        for name in acts:
            seconds = [each[name][index] for each in rounds]
            print(f"{what:4}  {name:15}  median {statistics.median(seconds):.3f} s, minimum {min(seconds):.3f} s")
        for name, other in (("save", "save_file"), ("save_file again", "save_file"), ("save", "hash")):
            ratios = [each[name][index] / each[other][index] for each in rounds]
            print(f"{what:4}  {name} / {other}: {quartiles(ratios)}")


if __name__ == "__main__":
    main()
