"""The soak test of `chaos.py`: interrupts runs by random events for a given time."""

from __future__ import annotations

import itertools
import json
import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from chaos_run import NOISES, Child, Row, Run, digest

from loopwright import Trainer
from loopwright.checkpoint import verify_checkpoint
from loopwright.errors import CheckpointError


class Soak:
    """Interrupts runs at random times, one run after another. Each run is resumed until the run is complete.

    Args:
        root: directory for all runs.
        rng: random generator for the events.
    """

    num_steps = 600
    seconds_to_hang = 120.0
    events = ("kill", "signal", "flip", "full disk")

    def __init__(self, root: Path, rng: random.Random) -> None:
        self._root, self._rng = root, rng
        self.expected = {noise: self._run(root / f"straight_{noise}", noise).finish() for noise in NOISES}
        begun = time.monotonic()
        self._run(root / "timed", "torch").finish()
        self._seconds = time.monotonic() - begun
        self.counts: Counter[str] = Counter()
        self._history: list[str] = []

    @property
    def num_events(self) -> int:
        """Number of events that have interrupted runs so far."""
        return sum(self.counts[event] for event in self.events)

    def one_run(self, number: int) -> None:
        """Interrupt and resume one run until the run is complete, and compare its digest with an uninterrupted run."""
        noise, directory = self._rng.choice(NOISES), self._root / f"run_{number}"
        answer = None
        self._history = []
        while answer is None:
            answer = self._until_event(directory, noise)
        self.counts["runs"] += 1
        self.counts["equal"] += answer == self.expected[noise]
        if answer != self.expected[noise]:
            print(f"not equal, with noise of {noise}, after {'; '.join(self._history)}", flush=True)
        self.counts["clean"] += not any(path.name.startswith(".") for path in (directory / "checkpoints").iterdir())
        shutil.rmtree(directory)

    def _run(self, directory: Path, noise: str) -> Run:
        return Run(directory=directory, noise=noise, num_steps=self.num_steps, save_every=20, keep_last=2)

    def _until_event(self, directory: Path, noise: str) -> object:
        """Start or resume a run until an event interrupts it.

        Return the digest of the run, or None if the run is not complete.
        """
        rng, event = self._rng, self._rng.choice(self.events)
        is_begun = any((directory / "checkpoints").glob("step_*"))
        if not is_begun:
            shutil.rmtree(directory, ignore_errors=True)  # the run was killed before its first save
        run = replace(
            self._run(directory, noise),
            ckpt_path=directory if is_begun else None,
            num_workers=rng.choice((0, 0, 2)),
            background=rng.random() < 0.5,
        )
        number = rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
        full_at = rng.randrange(20_000) if event == "full disk" else None
        child = Child(lambda: digest(_with_room(run, full_at)))
        has_ended = child.ends_within(self.seconds_to_hang if full_at is not None else rng.uniform(0, self._seconds))
        if not has_ended and full_at is None:
            child.kill(number if event == "signal" else signal.SIGKILL, whole_group=rng.random() < 0.5)
            has_ended = child.ends_within(self.seconds_to_hang)
        if not has_ended:
            self.counts["hung"] += 1
            child.kill(signal.SIGKILL, whole_group=True)
        code = child.wait()
        text = child.read()
        where = max((folder.name for folder in (directory / "checkpoints").glob("step_*")), default="no checkpoint")
        self._history.append(f"{event} {full_at or ''} {run.num_workers} workers, {run.background}: {code} at {where}")
        if code == 0:
            return json.loads(text)
        self.counts[event] += 1
        right = {"signal": 130 if number == signal.SIGINT else 143, "full disk": 1}.get(event, -signal.SIGKILL)
        is_young = event == "signal" and code == -number  # the signal arrived before the fit had installed its handlers
        if code == right or is_young:
            self.counts["right exit"] += 1
        else:
            print(f"{event}: exit {code}, expected {right}: {text[-2000:]}", flush=True)
        if event == "flip":
            self.counts["flipped"] += self._flip(directory)
        return None

    def _flip(self, directory: Path) -> bool:
        """Flip one bit of the newest checkpoint if the second newest checkpoint is valid.

        Return whether a bit was flipped.
        """
        folders = sorted((directory / "checkpoints").glob("step_*"))
        if len(folders) < 2 or not _is_whole(folders[-2]):
            return False
        file = self._rng.choice(sorted(folders[-1].iterdir()))
        content = bytearray(file.read_bytes())
        content[self._rng.randrange(len(content))] ^= 1 << self._rng.randrange(8)
        file.write_bytes(content)
        return True


def _with_room(run: Run, num_bytes: int | None) -> Trainer:
    """Fit with a limit of ``num_bytes`` on the size of each file, to imitate a full disk. None sets no limit."""
    if num_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))
    return run.fit()


def _is_whole(folder: Path) -> bool:
    try:
        verify_checkpoint(folder)
    except CheckpointError:
        return False
    return True


def soak(root: Path, rng: random.Random, num_tries: int, minutes: float = 0.0) -> Iterator[Row]:
    """Interrupt runs by random kills, signals, flipped bits and full disks.

    Args:
        root: directory for all runs.
        rng: random generator for the events.
        num_tries: minimum number of events.
        minutes: minimum duration of the test in minutes.
    """
    begun = time.monotonic()
    soaked = Soak(root, rng)
    for number in itertools.count():
        soaked.one_run(number)
        counts, seconds = soaked.counts, time.monotonic() - begun
        if number % 50 == 49:
            print(f"  {seconds / 60:.1f} minutes: {dict(counts)}", flush=True)
        if soaked.num_events >= num_tries and seconds >= 60 * minutes:
            break
    events = ", ".join(f"{counts[event]} {event}" for event in soaked.events)
    detail = f"{soaked.num_events} events in {seconds / 60:.0f} minutes: {events}; {counts['flipped']} bits flipped"
    yield Row("soak: runs that end bitwise like the uninterrupted run", counts["equal"], counts["runs"], detail)
    yield Row("  no partial files left", counts["clean"], counts["runs"])
    yield Row("  the right exit code", counts["right exit"], soaked.num_events)
    yield Row("  ended in time", soaked.num_events - counts["hung"], soaked.num_events)
