"""`Launcher`, which starts the jobs of a sweep, and `Processes`, which runs each job in a process of its own.

This module imports no torch. Without torch, the runner of a sweep needs little memory.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loopwright.errors import CheckpointError, SaveError
from loopwright.experiment.console.messages import one_line_of
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.launch.job_process import JobProcess, process_tree, wait_for_end
from loopwright.experiment.launch.out_of_memory import count_oom_kills
from loopwright.experiment.sweep.attempts import set_aside_unsaved
from loopwright.experiment.sweep.job_files import process_words
from loopwright.experiment.sweep.slots import Slot

_OUT_OF_MEMORY = "out of memory: the kernel killed the process"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome:
    """How the process of a job ended.

    Attributes:
        exit_code: exit code of the job, or minus the number of the signal that killed its process.
        error: why the job could not begin, on one line. None if it began; ``summary.json`` contains its later errors.
    """

    exit_code: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """A job whose process has ended.

    Attributes:
        number: number of the job.
        outcome: how the process ended.
        failure: why the job has failed, if the launcher, its scheduler or the kernel ended it; otherwise, None.
    """

    number: int
    outcome: JobOutcome
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class _Running:
    """A running job: its process, its slot, and how many processes the kernel had killed for memory when it began."""

    process: JobProcess
    slot: Slot
    num_oom_kills: int | None


class Launcher(Protocol):
    """Starts and ends jobs, and reports which jobs have ended."""

    @property
    def num_free(self) -> int:
        """Number of jobs that can be started now."""
        ...

    def start(self, number: int) -> str:
        """Start a job, and return where it runs. `Inline` runs the whole job before it returns.

        If the launcher starts several jobs together, the job starts in `submit`, and the returned text is empty.
        """
        ...

    def submit(self) -> Mapping[int, str]:
        """Start the jobs that `start` has collected, and return where each runs.

        Raises:
            SettingError: if none of them was started.
        """
        ...

    @property
    def outlives_runner(self) -> bool:
        """Whether running jobs continue after the end of this process, and a later runner can find them."""
        ...

    def poll(self, timeout_seconds: float) -> Sequence[EndedJob]:
        """Return the jobs that have ended since the last call. Wait for one, up to the timeout."""
        ...

    def stop(self, number: int) -> None:
        """Ask a running job to save and end."""
        ...

    def kill(self, number: int) -> None:
        """Kill the processes of a running job."""
        ...

    def interrupt(self, received: signal.Signals) -> None:
        """Ask all running jobs to save and end, after this process has received a signal."""
        ...

    def memory_bytes(self, number: int) -> int:
        """Return the resident memory of a job with its workers; 0 if it is unknown."""
        ...


class Processes:
    """Runs each job in a process of its own.

    Args:
        directory: directory of the sweep.
        trust: packages that the user trusts.
        slots: one entry for each job that may run at a time.
    """

    def __init__(self, directory: Path, trust: Trust, slots: Sequence[Slot]) -> None:
        self._directory = directory
        self._trust = trust
        self._free = list(slots)
        self._running: dict[int, _Running] = {}
        self._killed: set[int] = set()
        self._not_started: list[EndedJob] = []

    @property
    def num_free(self) -> int:
        """Number of slots in which no job runs."""
        return len(self._free)

    def start(self, number: int) -> str:
        """Start a job in a free slot. If it cannot be started, `poll` returns it as a job that has failed."""
        self._killed.discard(number)
        slot, directory = self._free[0], self._directory / str(number)
        words = process_words(self._trust.flags, self._directory, number)
        num_oom_kills = count_oom_kills()
        try:
            set_aside_unsaved(directory)  # the process writes to `output.log` in the new directory
            process = JobProcess(words, slot.environment, directory / "output.log")
        except (OSError, EOFError, SaveError, CheckpointError) as error:
            outcome = JobOutcome(exit_code=1, error=f"not started: {one_line_of(error)}")
            self._not_started.append(EndedJob(number=number, outcome=outcome))
            return ""
        del self._free[0]
        self._running[number] = _Running(process, slot, num_oom_kills)
        return slot.name or f"pid {process.process_id}"

    def submit(self) -> Mapping[int, str]:
        """Return nothing, because `start` has started the jobs."""
        return {}

    @property
    def outlives_runner(self) -> bool:
        """False: the jobs end with this process."""
        return False

    def poll(self, timeout_seconds: float) -> Sequence[EndedJob]:
        """Return the jobs whose processes have ended, or could not be started."""
        ended, self._not_started = self._not_started, []
        wait_for_end([each.process for each in self._running.values()], 0.0 if ended else timeout_seconds)
        for number, job in list(self._running.items()):
            code = job.process.exit_code
            if code is not None:
                job.process.kill()  # ends processes that the job has left, such as dataloader workers
                del self._running[number]
                self._free.append(job.slot)
                failure = self._failure(number, job, code)
                ended.append(EndedJob(number=number, outcome=JobOutcome(exit_code=code), failure=failure))
        return ended

    def _failure(self, number: int, job: _Running, exit_code: int) -> str | None:
        """Return whether the kernel killed a job because the memory was used up."""
        if exit_code != -signal.SIGKILL or number in self._killed:
            return None
        before, now = job.num_oom_kills, count_oom_kills()
        return _OUT_OF_MEMORY if before is not None and now is not None and now > before else None

    def stop(self, number: int) -> None:
        """Send SIGTERM to the process of a job."""
        if number in self._running:
            self._running[number].process.terminate()

    def kill(self, number: int) -> None:
        """Kill all processes of a job."""
        if number in self._running:
            self._killed.add(number)
            self._running[number].process.kill()

    def interrupt(self, received: signal.Signals) -> None:
        """Send SIGTERM to the processes of all jobs."""
        for job in list(self._running.values()):
            job.process.terminate()

    def memory_bytes(self, number: int) -> int:
        """Return the resident memory of the process of a job, with all processes that it has started."""
        running = self._running.get(number)
        return 0 if running is None else tree_memory_bytes(running.process.process_id)


def tree_memory_bytes(process_id: int) -> int:
    """Return the resident memory of a process and of all processes that it has started; 0 without ``/proc``."""
    total = 0
    for each in process_tree(process_id):
        try:
            total += int(Path("/proc", str(each), "statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):  # the process has ended
            continue
    return total * os.sysconf("SC_PAGE_SIZE")
