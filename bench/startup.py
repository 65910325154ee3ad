"""Compares the time that the default experiment needs from its start to its first step with a minimal script.

    python bench/startup.py               # 11 pairs
    python bench/startup.py --pairs 21

Before its first step, the command also runs the model on the first validation batch. To measure the time of this trial,
the command is compared with a command with ``loop.eval_frequency=null``, which has no validations and no trial.

The minimal script imports torch and Hydra, composes the default configuration, builds an equal network, optimizer and
batch, and trains one step. The commands and the script run in turn, each in a new process that exits after its first
step. The wall times and CPU times of the processes are compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

RAW = f"""
import os
import torch
from torch import nn
from hydra import compose, initialize_config_dir

with initialize_config_dir({str(ROOT / "conf")!r}, version_base="1.3"):
    config = compose("config")
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=config.optimizer.lr)
images, labels = torch.rand(32, 1, 8, 8), torch.randint(10, (32,))
nn.functional.cross_entropy(model(images), labels).backward()
optimizer.step()
os._exit(0)
"""

LEAVE = """
import os

from loopwright import Callback


class Leave(Callback):
    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        os._exit(0)
"""


def seconds_of(command: list[str], cwd: Path, check: bool = True) -> tuple[float, float]:
    """Run a command, and return its wall seconds and its CPU seconds. If ``check``, a failed command is an error."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, cwd=cwd, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu


def main() -> None:
    """Measure all pairs, and print the median times and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=11, help="number of pairs of processes to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "leave.py").write_text(LEAVE)
        (work / "raw.py").write_text(RAW)
        (work / "own" / "callbacks").mkdir(parents=True)
        (work / "own" / "callbacks" / "leave.yaml").write_text("leave:\n  _target_: leave.Leave\n")
        raw = [sys.executable, "raw.py"]
        command = str(Path(sys.executable).with_name("loopwright"))
        ours = [command, "--config-dir=own", "--trust=leave", "callbacks=[default,leave]"]
        untried = [*ours, "loop.eval_frequency=null"]
        commands = (ours, raw, untried)
        for each in commands:
            seconds_of(each, work)
        rounds = [[seconds_of(each, work) for each in commands] for _ in range(options.pairs)]
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    for other, name in ((1, "script"), (2, "without the trial")):
        for index, what in enumerate(("wall", "CPU")):
            ratios = [each[0][index] / each[other][index] for each in rounds]
            seconds = [statistics.median(each[side][index] for each in rounds) for side in (0, other)]
            print(
                f"{what:4}  loopwright {seconds[0]:.2f} s  {name} {seconds[1]:.2f} s  "
                f"median ratio {statistics.median(ratios):.3f}  "
                f"({min(ratios):.3f} to {max(ratios):.3f}, {options.pairs} rounds)"
            )


if __name__ == "__main__":
    main()
