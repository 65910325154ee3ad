"""Measures what a sweep costs: jobs in parallel, the time between jobs, and the runner with 1,000 jobs.

    python bench/sweep.py                        # everything; takes about 15 minutes on 2 idle cores
    python bench/sweep.py between runner         # only some measurements

- ``parallel``: a sweep of four jobs, one after another and two at a time, measured alternately. The jobs alone are
  measured from the first start of a fit to the last end of a fit.
- ``parallel-long``: the same with jobs that are three times as long.
- ``between``: the time from the end of a job in the runner to the first step of the next job.
- ``output``: the time from the start of a process to the first line in its ``output.log``.
- ``plan``: the time of ``plan -m`` for each of 1,000 jobs. The time of 100 jobs is subtracted.
- ``show``: the time of ``sweep show`` with 1,000 jobs.
- ``runner``: CPU time and memory of the runner of 1,000 jobs on a terminal, while two jobs run in processes.

Other work on the machine changes these times, so the load average is printed too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import pty
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from loopwright.experiment.launch.job_process import JobProcess, start_server
from loopwright.experiment.sweep.index import Factor, Group, with_results
from loopwright.experiment.sweep.index_file import read_index, write_index

NUM_JOBS = 1000
RUNNER_SECONDS = 15.0

STAMPS = """
import time
from pathlib import Path

import loopwright


class Stamps(loopwright.Callback):
    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def write(self, trainer, event):
        with open("stamps.txt", "a") as file:
            file.write(f"{Path(trainer.run_dir).name} {event} {time.time()}\\n")

    def on_fit_start(self, trainer, train_dataloader, val_dataloader, loop):
        self.write(trainer, "start")

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        time.sleep(self.seconds)
        if trainer.global_step == 1:
            self.write(trainer, "step")

    def on_fit_end(self, trainer, result):
        self.write(trainer, "end")
"""

TRUST = "--trust=mine"
WORDS = (TRUST, "+callbacks.stamps._target_=mine.Stamps", "device=cpu", "device.num_threads=1")
SHORT = (*WORDS, "data=synthetic", "data.num_train=96", "data.num_val=32", "model.hidden=[8]", "loop.max_steps=24")
THREE_FACTORS = (
    "loop.grad_accum_steps=1,2,3,4,5,6,7,8,9,10",
    "optimizer.lr=1e-3,2e-3,3e-3,4e-3,5e-3,6e-3,7e-3,8e-3,9e-3,1e-2",
)


def command(*words: str) -> list[str]:
    """Return the command ``loopwright WORDS`` of this environment."""
    return [sys.executable, "-P", "-m", "loopwright", *words]


def seconds_of(work: Path, *words: str) -> float:
    """Run a command, and return its wall seconds. A failed command is an error."""
    begun = time.perf_counter()
    done = subprocess.run(command(*words), cwd=work, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    assert done.returncode == 0, done.stdout + done.stderr
    return seconds


def take_stamps(work: Path) -> dict[tuple[int, str], float]:
    """Return the times that the jobs have written, by job and event, and remove the file."""
    path = work / "stamps.txt"
    lines = [line.split() for line in path.read_text().splitlines()]
    path.unlink()
    return {(int(job), event): float(time) for job, event, time in lines}


def measure_parallel(work: Path, rounds: int, num_steps: int = 8_000) -> None:
    """Compare a sweep of one job at a time with a sweep of two jobs at a time, each job with ``num_steps`` steps."""
    whole: dict[int, list[float]] = {1: [], 2: []}
    alone: dict[int, list[float]] = {1: [], 2: []}
    for _, num_parallel in itertools.product(range(rounds), (1, 2)):
        sweep = ("-m", *WORDS, "seed=0,1,2,3", f"loop.max_steps={num_steps}", "model.hidden=[512]")
        whole[num_parallel].append(seconds_of(work, *sweep, f"sweep.num_parallel={num_parallel}"))
        stamps = take_stamps(work).values()
        alone[num_parallel].append(max(stamps) - min(stamps))
    for name, found in (("whole command", whole), ("jobs alone", alone)):
        ratios = [serial / parallel for serial, parallel in zip(found[1], found[2], strict=True)]
        serial, parallel = (statistics.median(found[each]) for each in (1, 2))
        print(
            f"parallel  {num_steps:,} steps, {name:14} one at a time {serial:6.1f} s  two {parallel:6.1f} s  "
            f"median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {rounds} pairs)"
        )


def measure_between(work: Path, rounds: int) -> None:
    """Measure the time between two jobs in the runner."""
    gaps = []
    for number in range(rounds):
        seconds_of(work, "-m", *SHORT, "seed=0,1,2,3,4,5", f"hydra.sweep.dir=between_{number}")
        stamps = take_stamps(work)
        for job in range(1, 6):
            end = (work / f"between_{number}" / str(job - 1) / "curves.png").stat().st_mtime
            gaps.append(stamps[job, "step"] - end)
    print(f"between   end of a job to the first step of the next: {summary(gaps)}")


def measure_output(work: Path, rounds: int) -> None:
    """Measure the time from the start of a process to its first line."""
    seconds_of(work, "-m", *SHORT, "seed=0", "hydra.sweep.dir=output")
    job, output = work / "output" / "0", work / "output" / "0" / "output.log"
    os.chdir(work)
    start_server()
    times = []
    for number in range(rounds * 5 + 1):
        for path in job.iterdir():
            if path.name not in ("config.yaml", "plan.txt", ".hydra"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        begun = time.perf_counter()
        process = JobProcess([TRUST, "sweep", "job", "output", "0"], {}, output)
        while not output.exists() or not output.stat().st_size:
            time.sleep(0.002)
        if number:  # the first process waits for the server
            times.append(time.perf_counter() - begun)
        while process.exit_code is None:
            time.sleep(0.01)
        assert process.exit_code == 0, output.read_text()
    print(f"output    start of a process to its first line: {summary(times)}")


def measure_plan(work: Path, rounds: int) -> None:
    """Measure the time of ``plan -m`` for each job."""
    times = []
    for _ in range(rounds):
        few, many = (
            seconds_of(work, "plan", "-m", *WORDS, *THREE_FACTORS, f"seed=range(0,{num_seeds})")
            for num_seeds in (1, NUM_JOBS // 100)
        )
        times.append((many - few) / (NUM_JOBS - 100))
    print(f"plan      for each of {NUM_JOBS:,} jobs: {summary(times)}")


def measure_show(work: Path, rounds: int) -> None:
    """Measure the time of ``sweep show``, and check that torch is not imported."""
    seconds_of(work, "-m", *SHORT, "seed=0", "hydra.sweep.dir=show")
    multiply(work / "show")
    code = "import sys; from loopwright.cli import main; code = main(['sweep', 'show', 'show']); "
    code += "sys.exit(code or 'torch' in sys.modules)"
    times = []
    for _ in range(rounds * 3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-c", code], cwd=work, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    print(f"show      {NUM_JOBS:,} jobs, without torch: {summary(times)}")


def multiply(sweep: Path) -> None:
    """Turn a sweep of one job into a sweep of 1,000 jobs with three factors, and copy the directory of the job."""
    index = read_index(sweep)
    job, rates = index.jobs[0], [0.001 * number for number in range(1, 11)]
    factors = (Factor(key="optimizer.lr", values=tuple(rates)), Factor(key="loop.grad_accum_steps", values=(1, 2, 3)))
    pairs = list(itertools.product(rates, range(1, 11)))
    groups = [
        Group(number=number, values={"optimizer.lr": rate, "loop.grad_accum_steps": steps}, label=f"lr={rate} {steps}")
        for number, (rate, steps) in enumerate(pairs)
    ]
    jobs = [
        replace(job, number=number, group=number // 10, seed=number % 10, directory=str(number))
        for number in range(NUM_JOBS)
    ]
    for number in range(1, NUM_JOBS):
        shutil.copytree(sweep / "0", sweep / str(number), ignore=shutil.ignore_patterns("checkpoints"))
    seeds = tuple(range(10))
    write_index(
        sweep, with_results(replace(index, jobs=tuple(jobs), groups=tuple(groups), factors=factors, seeds=seeds))
    )


def measure_runner(work: Path, rounds: int) -> None:
    """Measure CPU time and memory of the runner of 1,000 jobs while two of them run."""
    seeds = f"seed=range(0,{NUM_JOBS // 100})"
    words = ("-m", *SHORT, *THREE_FACTORS, seeds, "sweep.num_parallel=2", "hydra.sweep.dir=runner")
    slow = ("+callbacks.stamps.seconds=60",)
    main_end, terminal = pty.openpty()
    process = subprocess.Popen(command(*words, *slow), cwd=work, stdout=terminal, stderr=terminal)
    os.close(terminal)
    threading.Thread(target=drain, args=(main_end,), daemon=True).start()
    while not (work / "runner" / "1" / "output.log").exists() or "Plan" not in output_of(work / "runner" / "1"):
        assert process.poll() is None, "the sweep has ended"
        time.sleep(0.5)
    time.sleep(2.0)
    before, begun = cpu_seconds(process.pid), time.perf_counter()
    time.sleep(RUNNER_SECONDS)
    share = (cpu_seconds(process.pid) - before) / (time.perf_counter() - begun)
    memory = resident_mebibytes(process.pid)
    process.terminate()
    process.terminate()
    process.wait()
    jobs = json.loads((work / "runner" / "sweep.json").read_text())["jobs"]
    print(f"runner    {len(jobs):,} jobs, two run: {share:.1%} of a core, {memory:.0f} MiB resident")


def output_of(job: Path) -> str:
    """Return what the process of a job has printed."""
    return (job / "output.log").read_text(errors="replace")


def drain(descriptor: int) -> None:
    """Read everything that is written to a terminal."""
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:  # the process has closed the terminal
        pass


def cpu_seconds(process_id: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mebibytes(process_id: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def summary(times: Sequence[float]) -> str:
    """Format the median, the smallest and the largest time in milliseconds."""
    middle, low, high = (1000 * each for each in (statistics.median(times), min(times), max(times)))
    return f"median {middle:.0f} ms ({low:.0f} to {high:.0f}, {len(times)} times)"


MEASUREMENTS: dict[str, Callable[[Path, int], None]] = {
    "between": measure_between,
    "output": measure_output,
    "plan": measure_plan,
    "show": measure_show,
    "runner": measure_runner,
    "parallel": measure_parallel,
    "parallel-long": partial(measure_parallel, num_steps=24_000),
}


def main() -> None:
    """Carry out the chosen measurements, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}; all if left out")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds of each measurement")
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    here = Path.cwd()
    for name in options.names or MEASUREMENTS:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "mine.py").write_text(STAMPS)
            before = os.getloadavg()[0]
            MEASUREMENTS[name](Path(folder).resolve(), options.rounds)
            os.chdir(here)
        print(f"          load average {before:.1f} before, {os.getloadavg()[0]:.1f} after", flush=True)


if __name__ == "__main__":
    main()
