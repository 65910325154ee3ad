"""Interrupts runs in many ways, and counts how often a resumed run gives the same results as an uninterrupted run.

    python bench/chaos.py           # all experiments with all tries; takes half an hour
    python bench/chaos.py --fast    # about a tenth of the tries, like the tests
    python bench/chaos.py --soak 60 # one hour of runs with random kills, signals, flipped bits and full disks

Each experiment compares SHA-256 digests over weights, optimizer state, averaged weights and ``metrics.jsonl`` with the
digests of an uninterrupted run. "Bitwise" in the output means that the digests are equal. `chaos_run.py` defines the
run. Each run trains in a process that is forked from this process. Real signals are sent to the forked process.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from chaos_run import NOISES, NUM_STEPS, Child, Row, Run, Telling, digest
from chaos_soak import soak

from loopwright.checkpoint import resolve, verify_checkpoint
from loopwright.errors import CheckpointError
from loopwright.experiment.rundir import directory as run_directory


def kills(root: Path, rng: random.Random, num_tries: int) -> Iterator[Row]:
    """Send SIGKILL at random times. Half of the signals are sent during saves. Two workers read the data."""
    straight = Run(directory=root / "straight", num_workers=2)
    expected = straight.finish()
    num_inside = num_unreadable = num_lost = num_leftovers = num_equal = num_killed = 0
    while num_killed < num_tries:
        cut = Run(directory=root / f"cut_{num_killed}", num_workers=2)
        letters = _kill_somewhere(cut, rng, is_aimed=num_killed % 2 == 0)
        if letters is None:  # the run ended before the kill
            shutil.rmtree(cut.directory)
            continue
        num_killed += 1
        num_inside += letters.endswith("B")
        newest, is_readable = _newest(cut.directory)
        num_unreadable += not is_readable
        num_lost += newest < cut.save_every * letters.count("E")
        num_equal += cut.resumed().finish() == expected
        num_leftovers += any(path.name.startswith(".") for path in (cut.directory / "checkpoints").iterdir())
        shutil.rmtree(cut.directory)
    yield Row("SIGKILL at random moments, resumed bitwise", num_equal, num_tries, f"{num_inside} inside saves")
    yield Row("  every checkpoint with a final name is readable", num_tries - num_unreadable, num_tries)
    yield Row("  nothing lost after the last completed save", num_tries - num_lost, num_tries)
    yield Row("  no partial files left after the next start", num_tries - num_leftovers, num_tries)


def _kill_somewhere(cut: Run, rng: random.Random, *, is_aimed: bool) -> str | None:
    """Kill a run after its first save. Return the letters that `Telling` wrote; None if the run ended earlier."""
    reader, writer = os.pipe()
    run = replace(cut, callbacks=(Telling(writer),))
    child = Child(run.fit)
    os.close(writer)
    letters, goal = "", rng.randrange(1, NUM_STEPS // cut.save_every)
    while letters.count("E") < goal and (letter := _letter(reader)):
        letters += letter
    if is_aimed:
        while not letters.endswith("B") and (letter := _letter(reader)):
            letters += letter
        time.sleep(rng.uniform(0, 0.008))
    else:
        time.sleep(rng.uniform(0, 0.1))
    child.kill(signal.SIGKILL)
    code = child.wait()
    child.read()
    while _readable(reader, 0) and (letter := os.read(reader, 1).decode()):
        letters += letter
    os.close(reader)
    return letters if code == -signal.SIGKILL else None


def _letter(reader: int) -> str:
    """Return the next letter that a run writes; "" if the run has ended or writes no letter for 30 seconds."""
    return os.read(reader, 1).decode() if _readable(reader, 30) else ""


def _readable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def _newest(directory: Path) -> tuple[int, bool]:
    """Return the step of the newest checkpoint, and whether all checkpoints with a final name are valid.

    The step is 0 if a checkpoint is invalid or if there are no checkpoints.
    """
    folders = sorted((directory / "checkpoints").glob("step_*"))
    try:
        steps = [verify_checkpoint(folder).step for folder in folders]
    except CheckpointError:
        return 0, False
    return max(steps, default=0), True


def operations(root: Path, rng: random.Random, stride: int) -> Iterator[Row]:
    """Kill the process of a run after file operation 1, 1 + ``stride``, … of a save, and resume each time."""
    expected = Run(directory=root / "straight", save_every=15).finish()
    num_tries = num_equal = 0
    for at in itertools.count(1, stride):
        cut = Run(directory=root / f"cut_{at}", save_every=15)
        child = Child(lambda cut=cut, at=at: _fit_and_stop_after(cut, at))
        if child.wait() == 0:
            child.read()
            break
        child.read()
        newest, is_readable = _newest(cut.directory)
        num_tries += 1
        num_equal += is_readable and newest in (15, 30) and cut.resumed().finish() == expected
    yield Row("stopped after each file operation of a save, resumed bitwise", num_equal, num_tries)


def _fit_and_stop_after(cut: Run, at: int) -> None:
    """Fit, and kill the process after file operation ``at`` (from 1) of the second save.

    Exit with code 0 if the save has fewer file operations.
    """
    from loopwright import Callback

    class Counting(Callback):
        num_saves = num_done = 0

        def on_save_checkpoint(self, *_: object) -> None:
            self.num_saves += 1

        def on_after_save_checkpoint(self, *_: object) -> None:
            if self.num_saves == 2:
                os._exit(0)

    counting = Counting()

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            result = function(*arguments, **keywords)
            if counting.num_saves == 2:
                counting.num_done += 1
                if counting.num_done == at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "close"):
        setattr(os, name, counted(getattr(os, name)))
    replace(cut, callbacks=(counting,)).fit()


def every_step(root: Path, rng: random.Random, stride: int) -> Iterator[Row]:
    """Resume at step 1, 1 + ``stride``, …, each time in a new process with another seed."""
    straight = Run(directory=root / "straight", save_every=1)
    expected = straight.finish()
    num_equal, steps = 0, range(1, NUM_STEPS + 1, stride)
    for step in steps:
        copy = root / f"copy_{step}"
        _copy_up_to(straight.directory, copy, step)
        resumed = Run(directory=copy, ckpt_path=copy, seed=1000 + step, save_every=1)
        num_equal += resumed.finish() == expected
        shutil.rmtree(copy)
    yield Row("resumed at each step, bitwise", num_equal, len(steps))


def _copy_up_to(source: Path, target: Path, step: int) -> None:
    """Copy a run without its checkpoints after ``step``, so that the copy resumes from the checkpoint of ``step``."""
    shutil.copytree(source, target)
    for folder in (target / "checkpoints").iterdir():
        if verify_checkpoint(folder).step > step:
            shutil.rmtree(folder)


def pairs(root: Path, rng: random.Random, num_tries: int) -> Iterator[Row]:
    """Interrupt runs at a random step, and resume each with a random number of workers, for each kind of noise."""
    expected = {noise: Run(directory=root / f"straight_{noise}", noise=noise).finish() for noise in NOISES}
    num_equal = 0
    for index in range(num_tries):
        noise, workers = NOISES[index % 4], (0, 1, 2, 4)[index // 4 % 4]
        cut = Run(
            directory=root / f"cut_{index}",
            noise=noise,
            num_workers=workers,
            stop_at=rng.randrange(1, NUM_STEPS),
            save_every=1000,
        )
        Child(lambda cut=cut: digest(cut.fit())).result()
        cut = cut.resumed(num_workers=rng.choice((0, 1, 2, 4)), stop_at=None)
        num_equal += cut.finish() == expected[noise]
        shutil.rmtree(cut.directory)
    yield Row("interruption step x workers x noise, bitwise", num_equal, num_tries)


def flips(root: Path, rng: random.Random, num_tries: int) -> Iterator[Row]:
    """Flip single random bits of a checkpoint, one at a time, and check that each is detected."""
    Run(directory=root / "run", save_every=30).finish()
    folder = resolve(root / "run")
    files = sorted(folder.iterdir())
    sizes = [file.stat().st_size for file in files]
    num_found = 0
    for _ in range(num_tries):
        file = rng.choices(files, sizes)[0]
        content = bytearray(file.read_bytes())
        position, bit = rng.randrange(len(content)), rng.randrange(8)
        content[position] ^= 1 << bit
        file.write_bytes(content)
        try:
            verify_checkpoint(folder)
        except CheckpointError as error:
            num_found += file.name in str(error) or "manifest" in str(error)
        content[position] ^= 1 << bit
        file.write_bytes(content)
    verify_checkpoint(folder)
    yield Row("single flipped bits detected", num_found, num_tries)


def signals(root: Path, rng: random.Random, num_tries: int) -> Iterator[Row]:
    """Send SIGINT, SIGTERM or SIGUSR1 to the main process at random times. Send every second signal also to workers."""
    straight = Run(directory=root / "straight", num_workers=2, save_every=20)
    begun = time.monotonic()
    expected = straight.finish()
    seconds = time.monotonic() - begun
    num_good = num_sent = 0
    while num_sent < num_tries:
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)[num_sent % 3]
        cut = Run(directory=root / f"cut_{num_sent}", num_workers=2, save_every=20)
        code = _signal_somewhere(cut, number, rng.uniform(0, 0.5 * seconds), whole_group=num_sent % 2 == 1)
        # The signal arrived too late: the run had ended, or the fit had ended and removed the signal handlers.
        if code == 0 or (code == -number and _newest(cut.directory)[0] == NUM_STEPS):
            shutil.rmtree(cut.directory)
            continue
        num_sent += 1
        _, is_readable = _newest(cut.directory)
        is_expected = code == (130 if number == signal.SIGINT else 143)
        num_good += is_expected and is_readable and cut.resumed().finish() == expected
        shutil.rmtree(cut.directory)
    yield Row("signals at random moments: saved, right exit code, resumed bitwise", num_good, num_tries)


def _signal_somewhere(cut: Run, number: int, delay: float, *, whole_group: bool) -> int:
    reader, writer = os.pipe()
    run = replace(cut, callbacks=(Telling(writer),))
    child = Child(lambda: digest(run.fit()))
    os.close(writer)
    os.read(reader, 1)
    time.sleep(delay)
    child.kill(number, whole_group=whole_group)
    code = child.wait()
    child.read()
    os.close(reader)
    return code


def starts(root: Path, rng: random.Random, num_tries: int) -> Iterator[Row]:
    """Create the run directories of many runs in the same second."""

    class Frozen(run_directory.datetime):  # type: ignore[misc, name-defined]
        @classmethod
        def now(cls, tz: object = None) -> Frozen:  # noqa: ARG003
            return cls(2026, 1, 2, 3, 4, 5)

    barrier, gate = os.pipe()

    def start() -> str:
        os.chdir(root)
        run_directory.datetime = Frozen  # type: ignore[attr-defined]
        os.close(gate)
        os.read(barrier, 1)  # blocks until all processes have started
        return str(run_directory.allocate("same", is_sweep=False))

    children = [Child(start) for _ in range(num_tries)]
    os.close(gate)
    names = [child.result() for child in children]
    os.close(barrier)
    is_one_second = len({name.rsplit("_", 1)[0] for name in names}) == 1
    yield Row("runs started within one second: separate folders", len(set(names)) if is_one_second else 0, num_tries)


Experiment = Callable[[Path, random.Random, int], Iterator[Row]]

# Number of tries of each experiment. For `operations` and `every_step`, the number is a stride: 1 tries every operation
# or step, and 6 tries every sixth operation or step.
FULL: dict[Experiment, int] = {
    kills: 200, operations: 1, every_step: 1, pairs: 64, flips: 1000, signals: 60, starts: 64, soak: 60
}  # fmt: skip
FAST: dict[Experiment, int] = {
    kills: 8, operations: 6, every_step: 12, pairs: 6, flips: 100, signals: 6, starts: 16, soak: 6
}  # fmt: skip


def run_one(experiment: Experiment, size: int, seed: int = 0) -> list[Row]:
    """Run one experiment in a new directory. Use one thread, because a forked process does not have torch's threads."""
    with tempfile.TemporaryDirectory() as root, _one_thread():
        return list(experiment(Path(root), random.Random(seed), size))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main() -> int:
    """Print a row for each experiment, and return the exit code: 1 if any try failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument(
        "--soak", type=float, metavar="MINUTES", help="run only the soak test, for at least MINUTES and 500 events"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}", flush=True
    )
    is_good = True
    experiments = FAST if arguments.fast else FULL
    if arguments.soak is not None:
        experiments = {partial(soak, minutes=arguments.soak): 500}
    for experiment, size in experiments.items():
        for row in run_one(experiment, size, arguments.seed):
            print(row, flush=True)
            is_good &= row.num_good == row.num_tries
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
