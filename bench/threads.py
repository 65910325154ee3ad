"""Compares the times of steps on the CPU with one thread and with torch's number of threads, for models of many sizes.

    python bench/threads.py                # a table of ratios
    python bench/threads.py --pairs 31     # more pairs for each model

The models are the shipped classes. A batch has 32 samples, or 4 windows of 256 tokens for `GPT`. A step is a forward, a
backward and an AdamW update. Times are measured in pairs with alternating order. The table contains the median of the
ratios of the pairs. The value of `FEW_PARAMETERS` in ``loopwright.device`` was chosen from this table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from loopwright.models import CNN, GPT, MLP, ViT

Batch = Mapping[str, Tensor]


def images(size: int) -> Batch:
    """Return 32 random images of one channel with labels."""
    return {"image": torch.randn(32, 1, size, size), "label": torch.randint(10, (32,))}


def rows(num_features: int) -> Batch:
    """Return 32 random rows with labels."""
    return {"features": torch.randn(32, num_features), "label": torch.randint(10, (32,))}


def tokens() -> Batch:
    """Return 4 windows of 256 random tokens, and a random target for each token."""
    return {"tokens": torch.randint(256, (4, 256)), "targets": torch.randint(256, (4, 256))}


def cases() -> list[tuple[str, nn.Module, Batch]]:
    """Return the name, the model and the batch of each case. Each class is sorted by the number of parameters."""
    found: list[tuple[str, nn.Module, Batch]] = []
    for width in (64, 256, 512, 1024, 2048, 4096):
        found.append((f"MLP, hidden [{width}, {width}]", MLP(64, hidden=[width, width]), rows(64)))
    for channels, size in (((16, 32), 8), ((32, 64), 16), ((64, 128), 32), ((128, 256), 32)):
        found.append((f"CNN, channels {list(channels)}, size {size}", CNN(1, channels, size), images(size)))
    for width in (32, 64, 128, 256):
        found.append((f"ViT, width {width}", ViT(width=width), images(8)))
    for width in (32, 64, 128, 256):
        found.append((f"GPT, width {width}", GPT(width=width), tokens()))
    return found


def make_step(model: nn.Module, batch: Batch) -> Callable[[], None]:
    """Return a function that trains the model for one step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        model(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(step: Callable[[], None], num_threads: int, num_steps: int) -> float:
    """Return the wall time of ``num_steps`` steps with ``num_threads`` threads, in seconds."""
    torch.set_num_threads(num_threads)
    step()
    start = time.perf_counter()
    for _ in range(num_steps):
        step()
    return time.perf_counter() - start


def main() -> None:
    """Print one line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=11)
    pairs, most = parser.parse_args().pairs, torch.get_num_threads()
    print(f"torch {torch.__version__}, {os.cpu_count()} CPUs, {most} threads, load {os.getloadavg()[0]:.1f}")
    print(f"{'model':<36}{'parameters':>12}{'one thread / ' + str(most) + ' threads':>26}")
    for name, model, batch in cases():
        step = make_step(model, batch)
        num_steps = max(1, round(0.1 / seconds(step, 1, 3) * 3))
        ratios = []
        for pair in range(pairs):
            order = (1, most) if pair % 2 == 0 else (most, 1)
            times = {num_threads: seconds(step, num_threads, num_steps) for num_threads in order}
            ratios.append(times[1] / times[most])
        low, *_, high = statistics.quantiles(ratios, n=4)
        num_parameters = sum(each.numel() for each in model.parameters())
        print(f"{name:<36}{num_parameters:>12,}{statistics.median(ratios):>12.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
