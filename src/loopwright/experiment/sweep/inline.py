"""`Inline`, the launcher that runs each job of a sweep in this process."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.sweep.launchers import EndedJob, JobOutcome
from loopwright.experiment.sweep.one_job import run_sweep_job


class Inline:
    """Runs each job in this process. `start` returns when the job has ended.

    Args:
        directory: directory of the sweep.
        trust: packages that the user trusts.
    """

    def __init__(self, directory: Path, trust: Trust) -> None:
        self._directory = directory
        self._trust = trust
        self._ended: list[EndedJob] = []
        self._running: int | None = None

    @property
    def num_free(self) -> int:
        """1, or 0 until `poll` has returned the last job."""
        return 0 if self._ended else 1

    def start(self, number: int) -> str:
        """Run a job to its end."""
        outcome = JobOutcome(exit_code=143, error="interrupted")
        self._running = number
        try:
            outcome = run_sweep_job(self._directory, number, self._trust, is_quiet=True)
        except (KeyboardInterrupt, SystemExit):  # a signal arrived just before or after the job
            pass
        finally:
            self._running = None
        self._ended.append(EndedJob(number=number, outcome=outcome))
        gc.collect()  # reference cycles in callbacks may keep the objects of this job in memory
        return f"pid {os.getpid()}"

    def submit(self) -> Mapping[int, str]:
        """Return nothing, because `start` has started the jobs."""
        return {}

    @property
    def outlives_runner(self) -> bool:
        """False."""
        return False

    def poll(self, timeout_seconds: float) -> Sequence[EndedJob]:
        """Return the job that `start` has run. Without such a job, only wait."""
        ended, self._ended = self._ended, []
        if not ended:
            time.sleep(timeout_seconds)
        return ended

    def stop(self, number: int) -> None:
        """Send SIGTERM to this process, if the job runs. The run saves and ends."""
        if self._running == number:
            os.kill(os.getpid(), signal.SIGTERM)

    def kill(self, number: int) -> None:
        """Do nothing, because the job runs in this process."""

    def interrupt(self, received: signal.Signals) -> None:
        """End the running job, which has not set its own signal handlers yet.

        Raises:
            KeyboardInterrupt, SystemExit: if a job runs.
        """
        if self._running is not None:
            raise KeyboardInterrupt if received == signal.SIGINT else SystemExit(143)

    def memory_bytes(self, number: int) -> int:
        """Return 0."""
        return 0
