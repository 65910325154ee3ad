"""Compares the CPU time of trainings with the hand-written loop and with other libraries, if they are installed.

    python bench/peers.py                               # every workload, 15 rounds
    python bench/peers.py --only W2 --loops with_fabric,with_ignite --rounds 21

The workloads are W1 (a tiny MLP on a user's data set of ready batches), W2 (with accumulation, logging, validations and
checkpoints), W3 (a CNN on the handwritten digits in a user's data set), W4 (from the start of the process to the first
step), and W5 (a small GPT over bytes). `peer_loops/work.py` defines them.

In a round, every loop trains once, each in a new process with one thread. The hand-written loop is the first and the
last of a round; the others rotate. A training is timed after a short training in the same process. W4 times the whole
process. The ratio of a round is the time of a loop divided by the mean of the two hand-written loops. The half-width
is the half of the 95 % interval of the median ratio of the last to the first hand-written loop. A loop whose weights
differ from the weights of the hand-written loop by more than 1e-6 does not count.

Every library runs with its default settings. In W2 all loops write their checkpoints with `save_file` and ``fsync``,
except Loopwright, which also hashes them, and the two loops whose line says otherwise.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from overhead import median_interval
from startup import LEAVE, seconds_of

BENCH = Path(__file__).parent
BY_HAND, OURS = "by_hand", "with_loopwright"
# The package of each loop by its module, and what its checkpoints leave out in W2.
LOOPS: Mapping[str, tuple[str, str]] = {
    OURS: ("loopwright", "also hashes and verifies"),
    "with_fabric": ("lightning", ""),
    "with_ignite": ("ignite", ""),
    "with_accelerate": ("accelerate", ""),
    "with_lightning": ("lightning", "torch.save without fsync"),
    "with_transformers": ("transformers", "without fsync"),
}
COMMANDS = ("by_hand_and_hydra", "command", "command_without_trial")  # further rows of W4
TOLERANCE = 1e-6
HYDRA = f"""
from hydra import compose, initialize_config_dir

with initialize_config_dir({str(BENCH.parent / "conf")!r}, version_base="1.3"):
    compose("config")
"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """CPU seconds of one training, and the trained weights (empty for W4)."""

    seconds: float
    weights: Mapping[str, torch.Tensor]


def measure(work: str, loop: str, base: Path) -> Measurement:
    """Run one training in a new process. ``base`` is the folder for its files."""
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        if work == "W4":
            return Measurement(seconds_of(start_command(loop, folder), folder)[1], {})
        command = [sys.executable, "-m", "peer_loops.one", work, loop, str(folder)]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"{work} {loop} failed:\n{ended.stderr[-2000:]}")
        return Measurement(float(ended.stdout.split()[-1]), torch.load(folder / "weights.pt", weights_only=True))


def start_command(loop: str, folder: Path) -> list[str]:
    """Return the command of a row of W4."""
    if not loop.startswith("command"):
        module = BY_HAND if loop == "by_hand_and_hydra" else loop
        first = HYDRA if loop == "by_hand_and_hydra" else ""
        code = f"{first}\nimport pathlib\nfrom peer_loops.one import main\nmain('W4', {module!r}, pathlib.Path('.'))"
        return [sys.executable, "-c", code]
    (folder / "leave.py").write_text(LEAVE)
    (folder / "own" / "callbacks").mkdir(parents=True)
    (folder / "own" / "callbacks" / "leave.yaml").write_text("leave:\n  _target_: leave.Leave\n")
    command = [sys.executable, "-c", "from loopwright.cli import console; console()"]
    command += ["--config-dir=own", "--trust=leave", "callbacks=[default,leave]"]
    return command if loop == "command" else [*command, "loop.eval_frequency=null"]


def difference(weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> float:
    """Return the largest difference between two sets of weights. It is infinite if their names differ."""
    if weights.keys() != expected.keys():
        return float("inf")
    return max((float((value - expected[name]).abs().max()) for name, value in weights.items()), default=0.0)


def report(work: str, loops: list[str], rounds: int, base: Path) -> None:
    """Measure the rounds of one workload, and print a line for each loop."""
    seconds: dict[str, list[float]] = {loop: [] for loop in (BY_HAND, "again", *loops)}
    differences: dict[str, float] = {}
    for number in range(-1, rounds):  # the first round warms the caches of files, and compares the weights
        turn = number % len(loops) if loops else 0
        order = [BY_HAND, *loops[turn:], *loops[:turn]]
        found = {loop: measure(work, loop, base) for loop in order}
        found["again"] = measure(work, BY_HAND, base)
        if number < 0:
            expected = found[BY_HAND].weights
            differences = {loop: difference(each.weights, expected) for loop, each in found.items()}
            continue
        for loop, each in found.items():
            seconds[loop].append(each.seconds)
    by_hand = [(one + other) / 2 for one, other in zip(seconds[BY_HAND], seconds["again"], strict=True)]
    itself = [other / one for one, other in zip(seconds[BY_HAND], seconds["again"], strict=True)]
    median, low, high = median_interval(itself)
    width = (high - low) / 2
    print(f"{work}  by hand {statistics.median(by_hand):.3f} s; against itself {median:.3f}, half-width {width:.3f}")
    medians: dict[str, float] = {}
    for loop in loops:
        ratio, low, high = median_interval([one / other for one, other in zip(seconds[loop], by_hand, strict=True)])
        largest = differences[loop]
        same = "same weights" if largest == 0 else f"weights differ by {largest:.0e}"
        if work == "W4":
            same = ""
        elif largest <= TOLERANCE:
            medians[loop] = ratio
        else:
            same += ", does not count"
        note = LOOPS[loop][1] if work == "W2" else ""
        print(f"    {loop:22} {ratio:.3f}  ({low:.3f} to {high:.3f})  {same}  {note}".rstrip(), flush=True)
        if work == "W4":
            medians[loop] = ratio
    print_bars(work, medians, width)


def print_bars(work: str, medians: Mapping[str, float], width: float) -> None:
    """Print whether Loopwright meets the limits: the hand-written loop, and every other library."""
    ours = medians.get(OURS)
    if ours is None:
        return
    print(f"    limit 1.000 + {width:.3f}: {'met' if ours <= 1 + width else 'missed'} with {ours:.3f}")
    ahead = [f"{loop} by {ours - each:.3f}" for loop, each in medians.items() if loop in LOOPS and each < ours - width]
    print(f"    ahead by more than the half-width: {', '.join(ahead) or 'none'}")
    if {*COMMANDS} <= medians.keys():
        hydra, trial = medians[COMMANDS[0]] - 1, medians["command"] - medians["command_without_trial"]
        limit = 1 + width + hydra + max(trial, 0.0)
        print(f"    command: limit 1.000 + {width:.3f} + Hydra {hydra:.3f} + trial {trial:.3f}: ", end="")
        print(f"{'met' if medians['command'] <= limit else 'missed'} with {medians['command']:.3f}", flush=True)


def version(package: str) -> str:
    """Return the version of an installed package."""
    return importlib.metadata.version({"ignite": "pytorch-ignite"}.get(package, package))


def main() -> None:
    """Measure and print all workloads."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="number of rounds of each workload")
    parser.add_argument("--only", default="W1,W2,W3,W4,W5", help="workloads, separated by commas")
    parser.add_argument("--loops", default=",".join(LOOPS), help="loops beside the hand-written one")
    parser.add_argument(
        "--folder", type=Path, default=Path.cwd(), help="folder for checkpoints, on the disk to measure"
    )
    options = parser.parse_args()
    # Each process finds this copy of Loopwright and the modules of this folder, and uses one thread.
    paths = [str(BENCH.parent / "src"), str(BENCH), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    loops: list[str] = []
    packages: dict[str, Any] = {"torch": torch.__version__}
    for loop in options.loops.split(","):
        package = LOOPS[loop][0]
        if importlib.util.find_spec(package) is None:
            print(f"{loop}: skipped, because {package} is not installed.")
            continue
        loops.append(loop)
        if package != "loopwright":
            packages[package] = version(package)
    listed = ", ".join(f"{name} {number}" for name, number in packages.items())
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {listed}, one thread")
    with tempfile.TemporaryDirectory(dir=options.folder) as base:
        for work in options.only.split(","):
            more = [*COMMANDS] if work == "W4" and OURS in loops else []
            report(work, [*loops, *more], options.rounds, Path(base))


if __name__ == "__main__":
    main()
