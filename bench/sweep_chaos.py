"""Kills the runner of a sweep at random moments, and compares the resumed sweep with a sweep without interruptions.

    python bench/sweep_chaos.py             # 20 kills with each launcher; takes about ten minutes
    python bench/sweep_chaos.py --kills 4

A sweep of six jobs runs to its end, one job after another. Then the same sweep is begun again, with one job at a time
in the runner (inline) and with two jobs at a time in processes of their own (process). A random time after its first
line, the runner receives SIGKILL. ``loopwright sweep resume`` is killed in the same way, up to three times. Then it may
end.
A job that was killed twice without a new checkpoint counts as failed, and ``loopwright sweep retry`` runs it again.

A sweep is equal if the weights, ``metrics.jsonl`` of all jobs, and the table are equal to the first sweep. After each
kill, all processes of the sweep must end within 10 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LAUNCHERS = ("inline", "process")
MAX_KILLS = 4  # of one sweep
LONGEST_SECONDS = 4.0  # between the first line and a kill
END_SECONDS = 10.0

SLOW = """
import time

import loopwright


class Slow(loopwright.Callback):
    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        time.sleep(0.02)
"""

WORDS = (
    "--trust=mine",
    "+callbacks.slow._target_=mine.Slow",
    "data=synthetic",
    "data.num_train=96",
    "data.num_val=32",
    "data.batch_size=4",
    "model.hidden=[8]",
    "loop.max_steps=40",
    "loop.eval_frequency=10",
    "checkpoint.every_n_steps=5",
    "device=cpu",
    "device.num_threads=1",
    "loop.grad_accum_steps=1,2",
    "seed=0,1,2",
)


@dataclass
class Count:
    """What happened with one launcher."""

    num_kills: int = 0
    num_sweeps: int = 0
    num_equal: int = 0
    num_left: int = 0
    num_retries: int = 0


def command(*words: str) -> list[str]:
    """Return the command ``loopwright WORDS`` of this environment."""
    return [sys.executable, "-P", "-m", "loopwright", *words]


def run(work: Path, *words: str) -> int:
    """Run a command to its end, and return its exit code."""
    with open(work / "output.txt", "a") as output:
        return subprocess.run(command(*words), cwd=work, stdout=output, stderr=subprocess.STDOUT).returncode


def run_and_kill(work: Path, rng: random.Random, *words: str) -> bool:
    """Run a command, and kill it at a random moment. Return False if it ended before."""
    process = subprocess.Popen(
        command(*words), cwd=work, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(rng.uniform(0, LONGEST_SECONDS))
    process.send_signal(signal.SIGKILL)
    code = process.wait()
    process.stdout.close()
    return code == -signal.SIGKILL


def processes_in(directory: Path) -> list[int]:
    """Return the IDs of the processes whose working directory is ``directory``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if os.readlink(path) == str(directory):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def all_end(directory: Path) -> bool:
    """Return whether all processes in ``directory`` end within ten seconds. Print the processes that do not."""
    deadline = time.monotonic() + END_SECONDS
    while left := processes_in(directory):
        if time.monotonic() > deadline:
            subprocess.run(["ps", "-o", "pid,ppid,stat,etimes,args", "-p", ",".join(map(str, left))])
            return False
        time.sleep(0.05)
    return True


def results(sweep: Path) -> Iterator[object]:
    """Yield everything that must be equal in two sweeps: weights, metrics, and the rows of the table."""
    for job in json.loads((sweep / "sweep.json").read_text())["jobs"]:
        yield job["state"], job["weights_sha256"], job["global_step"]
        yield (sweep / str(job["number"]) / "metrics.jsonl").read_bytes()
    yield [line for line in (sweep / "sweep.md").read_text().splitlines() if line.startswith("|")]


def kill_sweeps(work: Path, expected: list[object], launcher: str, num_kills: int, rng: random.Random) -> Count:
    """Begin sweeps, kill their runners until ``num_kills`` were killed, and compare the results."""
    count = Count()
    parallel = ["sweep.num_parallel=2"] if launcher == "process" else []
    while count.num_kills < num_kills:
        name = f"{launcher}_{count.num_sweeps}"
        words = ["-m", *WORDS, *parallel, f"hydra.sweep.dir={name}"]
        for _ in range(min(MAX_KILLS, num_kills - count.num_kills)):
            is_killed = run_and_kill(work, rng, *words)
            count.num_left += not all_end(work)
            if not is_killed:
                break
            count.num_kills += 1
            words = ["sweep", "resume", "--trust=mine", name]
        code = run(work, "sweep", "resume", "--trust=mine", name)
        if code == 1:
            count.num_retries += 1
            code = run(work, "sweep", "retry", "--trust=mine", name)
        count.num_sweeps += 1
        count.num_equal += code == 0 and list(results(work / name)) == expected
    return count


def main() -> None:
    """Run all sweeps, and print what happened with each launcher."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="number of kills with each launcher")
    parser.add_argument("--launcher", choices=LAUNCHERS, help="only this launcher")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    load = os.getloadavg()[0]
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        (work / "mine.py").write_text(SLOW)
        if run(work, "-m", *WORDS, "hydra.sweep.dir=straight"):
            sys.exit((work / "output.txt").read_text())
        expected = list(results(work / "straight"))
        print(f"{'launcher':10}{'kills':>7}{'sweeps':>8}{'equal':>7}{'retried':>9}{'left behind':>13}")
        all_counts = []
        for launcher in LAUNCHERS if options.launcher is None else (options.launcher,):
            count = kill_sweeps(work, expected, launcher, options.kills, rng)
            print(
                f"{launcher:10}{count.num_kills:7}{count.num_sweeps:8}{count.num_equal:7}{count.num_retries:9}"
                f"{count.num_left:13}",
                flush=True,
            )
            all_counts.append(count)
    sys.exit(any(count.num_equal < count.num_sweeps or count.num_left for count in all_counts))


if __name__ == "__main__":
    main()
