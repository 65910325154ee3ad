"""Disturbs runs of two and four processes in many ways, and counts how often they end and resume correctly.

    python bench/rank_chaos.py                  # all experiments; takes half an hour on two idle cores
    python bench/rank_chaos.py --only kills     # one experiment
    python bench/rank_chaos.py --every 4        # every fourth try

Each try starts the command ``loopwright device.num_processes=W`` with real processes. `rank_chaos_run.py` defines the
run. For each failed try, its settings and what was wrong are printed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from rank_chaos_run import LIMIT_SECONDS, LINE, NUM_STEPS, WORDS, Launch, environment

_WITHIN_SECONDS = 15.0
_NUM_LAUNCHES = 30
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

# A try receives an empty directory, and returns what was wrong; "" if nothing was wrong.
Try = Callable[[Path], str]


def signals(rng: random.Random) -> Iterator[tuple[str, Try]]:
    """Send a signal to one process, to all processes, to the command, or to the process group of the command."""
    numbers = itertools.cycle(_SIGNALS)
    for who, phase, size in itertools.product(
        ("one", "all", "parent", "group"), ("step", "validation", "save"), (2, 4)
    ):
        number = next(numbers)
        name = f"{number.name} to {who} in a {phase}, {size} processes"
        yield name, partial(_send, who=who, phase=phase, size=size, number=number)


def _send(there: Path, *, who: str, phase: str, size: int, number: signal.Signals) -> str:
    launch = Launch(there, *WORDS, f"device.num_processes={size}", f"+callbacks.trouble.phase={phase}")
    if not launch.wait_for("reached-0") or not launch.wait_for(f"reached-{size - 1}"):
        return f"ended too early: {launch.end()}"
    if who == "group":
        os.killpg(launch.parent, number)
    else:
        ranks = launch.ranks()
        for process_id in {"one": ranks[-1:], "all": ranks, "parent": [launch.parent]}[who]:
            os.kill(process_id, number)
    code, _, err = launch.end()
    found = launch.summary()
    step = found.get("global_step")
    wrong = [
        f"exit code {code}" if code != (130 if number == signal.SIGINT else 143) else "",
        f"state {found.get('state')}" if found.get("state") != "interrupted" else "",
        f"steps {launch.steps()}, recorded {step}" if {*launch.steps()} != {step} else "",
        f"saved {launch.newest()}, recorded {step}" if launch.newest() != step else "",
        err if "Traceback" in err or err.count("interrupted by") != 1 else "",
        *_left(launch),
    ]
    return "; ".join(filter(None, wrong))


def faults(rng: random.Random) -> Iterator[tuple[str, Try]]:
    """Let one process raise, exit, receive a deadly signal, or wait in C while another process raises."""
    for how, size, is_first in itertools.product(
        ("raise", "exit", "SIGKILL", "SIGSEGV", "stuck"), (2, 4), (True, False)
    ):
        rank = 0 if is_first else size - 1
        yield f"{how} in rank {rank} of {size}", partial(_fail, how=how, size=size, rank=rank)


def _fail(there: Path, *, how: str, size: int, rank: int) -> str:
    fault = (f"+callbacks.trouble.how={how}", f"+callbacks.trouble.rank={rank}")
    launch = Launch(there, *WORDS, f"device.num_processes={size}", *fault)
    if not launch.wait_for(f"reached-{rank}"):
        return f"ended too early: {launch.end()}"
    code, _, err = launch.end()
    raised = rank if how == "raise" else int(not rank)
    if how in ("raise", "stuck"):
        line = f"{f'rank {raised}: ' if raised else ''}ValueError: {LINE}"
    elif rank:
        line = f"rank {rank}: the process was killed, or ended without a message"
    else:
        ended = "ended with exit code 3" if how == "exit" else f"was killed by {how}"
        line = f"rank 0: the process {ended}"
    wrong = [
        f"exit code {code}" if code != 1 else "",
        f"{launch.seconds:.1f} s" if launch.seconds > _WITHIN_SECONDS else "",
        err if not err.startswith(line) or err.count("\n") != 1 else "",
        *_left(launch),
    ]
    return "; ".join(filter(None, wrong))


def kills(rng: random.Random) -> Iterator[tuple[str, Try]]:
    """Kill one process, all that train, the command, or all at a random moment, and resume."""
    expected: dict[int, tuple[str, bytes]] = {}
    for index in range(40):
        who, size = ("one", "all", "parent", "everything")[index % 4], 4 if index % 20 >= 16 else 2
        name = f"SIGKILL to {who}, {size} processes, {index // 4 % 2} workers"
        yield name, partial(_kill, who=who, size=size, num_workers=index // 4 % 2, rng=rng, expected=expected)


def _kill(
    there: Path, *, who: str, size: int, num_workers: int, rng: random.Random, expected: dict[int, tuple[str, bytes]]
) -> str:
    words = (*WORDS, f"device.num_processes={size}")
    pause_seconds = 0.4 if who == "parent" else 0.02  # the processes end 8 s after their parent
    if size not in expected:
        straight = Launch(_new(there / "straight"), *words)
        straight.end()
        expected[size] = straight.result()
    while True:
        more = (f"data.num_workers={num_workers}", "+callbacks.trouble.phase=save")
        cut = Launch(_new(there / "cut"), *words, *more, pause_seconds=pause_seconds)
        if not cut.wait_for("reached-0"):
            return f"ended too early: {cut.end()}"
        time.sleep(rng.uniform(0.1, 1.8))
        ranks = cut.ranks()
        one = [rng.choice(ranks or [cut.parent])]
        for process_id in {"one": one, "all": ranks, "parent": [cut.parent], "everything": [cut.parent, *ranks]}[who]:
            try:
                os.kill(process_id, signal.SIGKILL)
            except ProcessLookupError:
                continue
        code, _, _ = cut.end()
        if code != 0 and cut.summary().get("state") != "completed":  # otherwise the kill came too late
            break
    newest, late = cut.newest(), cut.seconds
    if newest is None:
        return "no readable checkpoint"
    resumed = Launch(there / "cut", "--trust=rank_chaos_run", "resume", "run")
    code, _, err = resumed.end()
    wrong = [
        f"ended after {late:.1f} s" if late > _WITHIN_SECONDS else "",
        f"resume from {newest}: exit code {code}, {err}" if code else "",
        "differs from the uninterrupted run" if code == 0 and resumed.result() != expected[size] else "",
        f"trained to {resumed.summary().get('global_step')}" if resumed.newest() != NUM_STEPS else "",
        *_left(resumed),
    ]
    return "; ".join(filter(None, wrong))


def launches(rng: random.Random) -> Iterator[tuple[str, Try]]:
    """Train with two processes many times in one process, and compare what the process holds."""
    yield f"{_NUM_LAUNCHES} launches in one process", _launch_often


_OFTEN = f"""
import os, signal, sys, threading
from loopwright.cli import main
names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGCHLD")
def state():
    children = open(f"/proc/self/task/{{os.getpid()}}/children").read().split()
    handlers = [signal.getsignal(getattr(signal, name)) for name in names]
    return len(os.listdir("/proc/self/fd")), threading.active_count(), handlers, dict(os.environ), children
def launch():
    assert main([word for word in sys.argv[1:] if not word.startswith("hydra.run.dir")]) == 0
launch()
before = state()
for _ in range({_NUM_LAUNCHES}):
    launch()
after = state()
print("descriptors", before[0], after[0], "threads", before[1], after[1], "children", after[4])
assert after[0] <= before[0] and after[1] <= before[1] and after[2:] == before[2:]
"""


def _launch_often(there: Path) -> str:
    words = [*WORDS, "device.num_processes=2"]
    done = subprocess.run(
        [sys.executable, "-c", _OFTEN, *words],
        cwd=there,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else f"{done.stdout[-300:]} {done.stderr[-600:]}"


def _left(launch: Launch) -> Iterator[str]:
    if (launch.run_dir / "ranks").exists():
        yield "the folder ranks is left"
    checkpoints = launch.run_dir / "checkpoints"
    if checkpoints.exists() and any(path.name.startswith(".") for path in checkpoints.iterdir()):
        yield "partial files are left"
    if launch.seconds > LIMIT_SECONDS:
        yield "processes are left"


def _new(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return directory


EXPERIMENTS: Mapping[str, Callable[[random.Random], Iterator[tuple[str, Try]]]] = {
    "signals": signals,
    "faults": faults,
    "kills": kills,
    "launches": launches,
}


def run_one(name: str, seed: int, every: int) -> tuple[int, int]:
    """Make every ``every``-th try of an experiment. Return the numbers of good tries and of tries."""
    num_good = num_tries = 0
    for index, (words, attempt) in enumerate(EXPERIMENTS[name](random.Random(seed))):
        if index % every:
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            wrong = attempt(Path(folder).resolve())
        num_tries += 1
        num_good += not wrong
        print(f"  {words}: {wrong or 'good'} ({time.monotonic() - begun:.0f} s)", flush=True)
    return num_good, num_tries


def main() -> int:
    """Print a row for each experiment, and return the exit code: 1 if any try failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=EXPERIMENTS, help="make one experiment")
    parser.add_argument("--every", type=int, default=1, help="make every N-th try")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}", flush=True)
    is_good = True
    for name in EXPERIMENTS if options.only is None else [options.only]:
        num_good, num_tries = run_one(name, options.seed, options.every)
        print(f"{name}: {num_good}/{num_tries}", flush=True)
        is_good &= num_good == num_tries
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
