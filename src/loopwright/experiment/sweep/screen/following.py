"""`RunFollower`, which reads the metrics of a running job, and functions that estimate and format its progress."""

from __future__ import annotations

import heapq
import json
import math
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from loopwright.experiment.sweep.index import ENDED, GOOD, JobEntry, SweepIndex
from loopwright.loggers.lines import duration_text, number_text, rate_text
from loopwright.records.series import METRICS_FILE
from loopwright.regular_files import open_regular

_MAX_READ_BYTES = 16 << 20  # most bytes that one call of `read` reads; the next call reads the rest
_TAIL_BYTES = 256
_RATE_SECONDS = 60.0  # the rate is measured over about this time
_MAX_SIMULATED_JOBS = 1000

Entry = tuple[int, str, float]


class RunFollower:
    """Reads the ``metrics.jsonl`` of a running job. Each call of `read` reads only the bytes that were appended.

    If the file has been replaced or truncated since the last call, its content is read again from the start. A resumed
    run truncates the file and then appends equal lines. If the last bytes that were read are at the same place again,
    reading continues after them.

    Args:
        directory: run directory of the job. The directory and the file need not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / METRICS_FILE
        self._identity: tuple[int, int] | None = None  # device and inode of the file
        self._offset = 0  # number of bytes read, up to the end of a line
        self._tail = b""  # the last bytes that were read
        self._latest: dict[str, float] = {}
        self._step = 0
        self.pace = Pace()

    @property
    def step(self) -> int:
        """Largest step of the entries; 0 before the first entry."""
        return self._step

    @property
    def latest(self) -> Mapping[str, float]:
        """Last value of each metric."""
        return MappingProxyType(self._latest)

    def read(self) -> list[Entry]:
        """Return the new entries of the file as tuples ``(step, name, value)``.

        If the file was replaced or truncated, all its entries are returned. Lines that cannot be parsed are skipped. An
        incomplete last line is left for the next call. The result is empty if the file is missing, is not a regular
        file, or cannot be read.
        """
        try:
            with open(open_regular(self._file), "rb") as file:
                if not self._is_continued(file):
                    self._start_over()
                status = os.fstat(file.fileno())
                self._identity = status.st_dev, status.st_ino
                file.seek(self._offset)
                data = file.read(_MAX_READ_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            self._start_over()
            return []
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        if not end and len(data) == _MAX_READ_BYTES:
            end = len(data)  # no metric has such a long line, so it is skipped
        return self._take(data[:end])

    def _is_continued(self, file: BinaryIO) -> bool:
        """Return whether the last bytes that were read are still at their place in the same file."""
        status = os.fstat(file.fileno())
        if self._identity != (status.st_dev, status.st_ino) or status.st_size < self._offset:
            return False
        file.seek(self._offset - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _start_over(self) -> None:
        self._identity, self._offset, self._tail = None, 0, b""
        self._step, self._latest = 0, {}

    def _take(self, lines: bytes) -> list[Entry]:
        self._offset += len(lines)
        self._tail = (self._tail + lines[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        entries = [entry for line in lines.splitlines() if (entry := _entry(line)) is not None]
        for step, name, value in entries:
            self._step = max(self._step, step)
            self._latest[name] = value
        return entries


def _entry(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
        return int(entry["step"]), str(entry["name"]), float(entry["value"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


class Pace:
    """Measures how fast a step number increases. The caller passes the times, so no clock is read."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()  # time at which each step was first seen

    def add(self, step: int, now_seconds: float) -> None:
        """Record ``step`` as the newest step at this time. A smaller step than before starts a new measurement."""
        if self._seen and step < self._seen[-1][1]:
            self._seen.clear()
        if not self._seen or step > self._seen[-1][1]:
            self._seen.append((now_seconds, step))
        while len(self._seen) > 2 and now_seconds - self._seen[1][0] >= _RATE_SECONDS:
            self._seen.popleft()

    @property
    def steps_per_second(self) -> float | None:
        """Steps per second over about the last minute; None until two steps were seen at different times."""
        if len(self._seen) < 2:
            return None
        (first_seconds, first_step), (last_seconds, last_step) = self._seen[0], self._seen[-1]
        seconds = last_seconds - first_seconds
        return (last_step - first_step) / seconds if seconds > 0 else None

    def seconds_to(self, num_steps: int, now_seconds: float) -> float | None:
        """Return the time until ``num_steps`` steps are completed; None if the rate is unknown.

        The time decreases between two new steps. If the next step is late, the time stays constant.
        """
        rate = self.steps_per_second
        if rate is None:
            return None
        last_seconds, last_step = self._seen[-1]
        mean_gap = (last_seconds - self._seen[0][0]) / (len(self._seen) - 1)
        return max(0.0, (num_steps - last_step) / rate - min(now_seconds - last_seconds, mean_gap))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a running job.

    Attributes:
        step: largest step in its metrics; 0 before the first metric.
        num_steps: number of steps in the plan of the run; None if unknown.
        metric: name of the shown metric; None before the first value.
        value: last value of this metric, which may be NaN or infinite.
        steps_per_second: measured rate; None if unknown.
        seconds_left: estimated time until the last step; None if unknown.
    """

    step: int = 0
    num_steps: int | None = None
    metric: str | None = None
    value: float | None = None
    steps_per_second: float | None = None
    seconds_left: float | None = None


def progress(
    follower: RunFollower, now_seconds: float, *, num_steps: int | None = None, objective: str | None = None
) -> Progress:
    """Return the progress of a job. The rate is computed from the times of this call and of earlier calls.

    Args:
        follower: follower of the job, whose `RunFollower.read` has been called.
        now_seconds: time of a monotonic clock.
        num_steps: number of steps in the plan of the run; None if unknown.
        objective: metric to show. Until it has a value, the training loss or another loss is shown.
    """
    latest = follower.latest
    if not latest:
        return Progress(num_steps=num_steps)
    follower.pace.add(follower.step, now_seconds)
    losses = [name for name in latest if name.endswith("/loss")]
    metric = next((name for name in (objective, "train/loss", *losses) if name in latest), None)
    return Progress(
        step=follower.step,
        num_steps=num_steps,
        metric=metric,
        value=None if metric is None else latest[metric],
        steps_per_second=follower.pace.steps_per_second,
        seconds_left=None if num_steps is None else follower.pace.seconds_to(num_steps, now_seconds),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """A running job with its progress.

    Attributes:
        entry: the job in the index.
        progress: progress of the job.
        seconds: time for which the job has been running.
    """

    entry: JobEntry
    progress: Progress
    seconds: float


class JobFollowers:
    """Follows all running jobs of a sweep.

    Args:
        directory: directory of the sweep.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._followed: dict[int, tuple[RunFollower, float]] = {}  # follower of a job, and when the job was first seen

    def read(self, index: SweepIndex, now_seconds: float) -> list[RunningJob]:
        """Read the new metrics of the running jobs, and return these jobs in the order of their numbers."""
        entries = [job for job in index.jobs if job.state == "running"]
        before = self._followed
        self._followed = {
            job.number: before.get(job.number) or (RunFollower(self._directory / job.directory), now_seconds)
            for job in entries
        }
        running = []
        for job in entries:
            follower, began_seconds = self._followed[job.number]
            follower.read()
            found = progress(follower, now_seconds, num_steps=job.num_steps, objective=index.objective.name)
            running.append(RunningJob(entry=job, progress=found, seconds=now_seconds - began_seconds))
        return running


def progress_cells(found: Progress) -> tuple[str, str, str, str]:
    """Return the step, the metric, the rate and the remaining time as texts. All are empty before the first metric."""
    if found.metric is None and not found.step:
        return "", "", "", ""
    steps = f"step {found.step:,}" if found.num_steps is None else f"{found.step:,}/{found.num_steps:,}"
    metric = "" if found.metric is None or found.value is None else metric_text(found.metric, found.value)
    is_left = found.seconds_left is not None and found.step < (found.num_steps or 0)
    left = f"{duration_text(found.seconds_left or 0.0)} left" if is_left else ""
    return steps, metric, rate_text(found.steps_per_second or 0.0), left


def progress_bar(found: Progress, width: int, tick: int) -> str:
    """Draw a progress bar. If the progress is unknown, a short piece of the bar moves when ``tick`` increases."""
    if not found.num_steps or not found.step:
        return "".join("━" if (at - tick) % width < 3 else "─" for at in range(width))
    full = min(width, width * found.step // found.num_steps)
    return ("━" * full + "╸" + "─" * width)[:width]


def metric_text(name: str, value: float) -> str:
    """Format a metric: ``val/loss 0.4137``, or ``val/loss not finite``."""
    return f"{name} {number_text(value) if math.isfinite(value) else 'not finite'}"


def num_jobs_of(index: SweepIndex) -> int:
    """Return the number of jobs that the sweep has at its end. The jobs of later proposals are included."""
    num_proposals = num_proposals_of(index) or 0
    return max(len(index.jobs), num_proposals * max(1, len(index.seeds)))


def num_proposals_of(index: SweepIndex) -> int | None:
    """Return the number of proposals of a search; None if the sweep is a grid."""
    num_proposals = index.settings.get("num_proposals")
    is_search = index.settings.get("search") in ("random", "tpe")
    return num_proposals if is_search and isinstance(num_proposals, int) else None


def sweep_seconds_left(index: SweepIndex, running: Sequence[RunningJob]) -> float | None:
    """Estimate the time until all jobs have ended; None if the duration of a job is not known yet.

    A waiting job is assumed to take as long as the jobs with a result took on average. Before the first result, the
    estimated durations of the running jobs are used.
    """
    durations = [job.seconds for job in index.jobs if job.state in GOOD and job.seconds > 0]
    if not durations:
        estimates = [(job.seconds, job.progress.seconds_left) for job in running]
        durations = [seconds + left for seconds, left in estimates if left is not None]
    num_ended = sum(job.state in ENDED for job in index.jobs)
    num_waiting = max(0, num_jobs_of(index) - num_ended - len(running))
    if not durations:
        return None if running or num_waiting else 0.0
    mean = sum(durations) / len(durations)
    left_of = [job.progress.seconds_left for job in running]
    slots = [max(0.0, mean - job.seconds) if left is None else left for job, left in zip(running, left_of, strict=True)]
    return _end_of(slots, num_waiting, mean, _num_parallel(index, len(running)))


def _num_parallel(index: SweepIndex, num_running: int) -> int:
    setting = index.settings.get("num_parallel")  # "auto" if the launcher decides
    return max(setting if isinstance(setting, int) else 1, num_running)


def _end_of(slots: list[float], num_waiting: int, mean: float, num_parallel: int) -> float:
    """Return the time at which all jobs have ended, if each waiting job starts as soon as a slot is free."""
    slots = [*slots, *[0.0] * (num_parallel - len(slots))]
    heapq.heapify(slots)
    num_simulated = min(num_waiting, _MAX_SIMULATED_JOBS)
    for _ in range(num_simulated):
        heapq.heapreplace(slots, slots[0] + mean)
    return max(slots) + (num_waiting - num_simulated) * mean / num_parallel
