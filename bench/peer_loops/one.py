"""Runs one training in this process: ``python -m peer_loops.one W1 by_hand FOLDER``.

A short training warms up. Then the training is timed. The last line of the output is the CPU time in seconds, and the
trained weights are in the file ``weights.pt`` of the folder. W4 has no warm-up: it ends the process after its first
step, and the process that starts it measures the CPU time.
"""

from __future__ import annotations

import gc
import importlib
import resource
import sys
from pathlib import Path

import torch

from peer_loops.work import WORKS


def cpu_seconds() -> float:
    """Return the CPU time of this process and its ended children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(name: str, loop: str, folder: Path) -> None:
    """Train, and print the CPU time."""
    torch.set_num_threads(1)
    prepare = importlib.import_module(f"peer_loops.{loop}").prepare
    if name != "W4":
        (folder / "short").mkdir()
        prepare(WORKS[name](True), folder / "short")()
    (folder / "long").mkdir()
    run = prepare(WORKS[name](False), folder / "long")
    gc.collect()
    begun = cpu_seconds()
    model = run()
    seconds = cpu_seconds() - begun
    torch.save(model.state_dict(), folder / "weights.pt")
    print(f"\n{seconds}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
