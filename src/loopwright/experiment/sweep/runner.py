"""`Runner`: starts the jobs of a sweep with a launcher, and records how they end.

Once a second, another thread checks the time and the memory of the running jobs, the deadline of the sweep, the request
of ``sweep stop``, and the pruner.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from loopwright.errors import SaveError, SettingError
from loopwright.experiment.sweep.index import GOOD, Attempt, JobEntry, SweepIndex, state_of
from loopwright.experiment.sweep.launchers import EndedJob, Launcher
from loopwright.experiment.sweep.reconcile import (
    ended_entry,
    has_checkpoint,
    newest_checkpoint,
    now,
    num_steps_of,
    reconciled_job,
)
from loopwright.experiment.sweep.requests import take_request
from loopwright.experiment.sweep.settings import SweepSettings
from loopwright.experiment.sweep.store import SweepStore
from loopwright.run_lock import is_locked

_POLL_SECONDS = 0.25
_WATCH_SECONDS = 1.0
_PRUNING_SECONDS = 0.2  # the same with a pruner, which decides after each validation
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_MINUTE = 60.0
_WAITING = {"pending", "interrupted"}
_GIB = float(1 << 30)
_log = logging.getLogger("loopwright")

Propose = Callable[[SweepIndex, int], Sequence[JobEntry]]
Watch = Callable[[JobEntry], None]


@dataclass(slots=True, kw_only=True)
class _Asked:
    """A request to a running job to save and end.

    Attributes:
        failure: why the job has failed; None if it is only interrupted.
        since: time of the request on the monotonic clock, in seconds.
    """

    failure: str | None
    since: float


class Runner:
    """Carries out the jobs of a sweep.

    Args:
        store: index of the sweep. This process holds the lock of the sweep.
        launcher: starts the jobs.
        settings: settings of the sweep.
        on_end: called in the main thread with the entry of each job that has ended.
        say: called in the main thread with a message about the whole sweep.
        propose: function that adds jobs to the index and returns them. Its arguments are the index and the number of
            further jobs that can start now. It is ignored if ``only`` is given. None: no jobs are added.
        only: numbers of the jobs to run; None: all that are pending or interrupted.
        watch: called once a second for each running job, in another thread.
        taken: numbers of jobs that an earlier runner has submitted, and that the launcher already knows.
    """

    def __init__(
        self,
        store: SweepStore,
        launcher: Launcher,
        settings: SweepSettings,
        *,
        on_end: Callable[[JobEntry], None],
        say: Callable[[str], None] = lambda text: None,
        propose: Propose | None = None,
        only: Collection[int] | None = None,
        watch: Watch | None = None,
        taken: Collection[int] = (),
    ) -> None:
        self._store = store
        self._launcher = launcher
        self._settings = settings
        self._on_end = on_end
        self._say = say
        self._propose = propose if only is None else None
        self._only = only
        self._watch = watch
        self._begun = dict.fromkeys(taken, time.monotonic())  # start time of each running job, in seconds
        self._asked: dict[int, _Asked] = {}
        self._not_to_run: set[int] = set()  # this runner has started them, or `sweep stop` named them
        self._received: signal.Signals | None = None
        self._is_stopped = False  # `sweep stop` asked for the end of the whole sweep
        self._skips = False  # no more jobs start, because of failures or the deadline
        self._num_failed = 0
        self._has_said = False  # whether the message about an interrupt was printed
        # Jobs of a killed runner that are still saving, and jobs that the user has resumed with `loopwright resume`.
        self._elsewhere = [job for job in store.index.jobs if job.state == "running" and self._may_run(job)]
        self._elsewhere = [job for job in self._elsewhere if job.number not in self._begun]
        self._started_seconds = time.monotonic()

    def run(self) -> int:
        """Carry out all pending and interrupted jobs, and return the exit code of the sweep.

        Returns:
            130, 143: the sweep was interrupted or stopped. 0: all jobs are done or pruned. 1: otherwise, for example if
            a job has failed.
        """
        self._store.set(state="running")
        take_request(self._store.directory)  # discards a request that an earlier runner did not read
        with self._handling_signals(), self._watching():
            while True:
                self._start_jobs()
                for ended in self._launcher.poll(_POLL_SECONDS):
                    self._record(ended)
                if self._received is not None and self._launcher.outlives_runner:
                    break
                self._look_elsewhere()
                self._say_interrupted()
                if not self._begun and not self._next_jobs(1) and not (self._elsewhere and self._may_start):
                    break
        return self._end()

    def _start_jobs(self) -> None:
        started = []
        for job in self._next_jobs(self._launcher.num_free):
            if self._received is not None:  # a signal arrived since the last job started
                break
            self._start(job)
            started.append(job)
        try:
            places = self._launcher.submit()
        except SettingError:
            for job in started:
                self._store.change(job)
            self._store.set(state="interrupted")
            raise
        for number, where in places.items():
            self._store.change(self._store.index.jobs[number].with_attempt(where=where))
        if places:  # a later runner finds the jobs by these texts
            self._store.flush()

    def _next_jobs(self, count: int) -> list[JobEntry]:
        """Return up to ``count`` jobs that can be started now."""
        if not self._may_start or not count:
            return []
        waiting = [
            job
            for job in self._store.index.jobs
            if job.state in _WAITING and job.number not in self._not_to_run and self._may_run(job)
        ]
        if len(waiting) < count and self._propose is not None:
            waiting += self._propose(self._store.index, count - len(waiting))
        return waiting[:count]

    @property
    def _may_start(self) -> bool:
        return self._received is None and not self._is_stopped and not self._skips

    def _may_run(self, job: JobEntry) -> bool:
        return self._only is None or job.number in self._only

    def _look_elsewhere(self) -> None:
        """Check the jobs that another process runs, and update the entries of the jobs that have ended."""
        for job in list(self._elsewhere):
            if not is_locked(self._store.directory / job.directory):
                self._elsewhere.remove(job)
                self._store.change(reconciled_job(self._store.directory, job))

    def _start(self, job: JobEntry) -> None:
        run_dir = self._store.directory / job.directory
        attempt = Attempt(
            started=now(),
            host=platform.node(),
            where=f"pid {os.getpid()}",
            resumed_from=newest_checkpoint(run_dir) if has_checkpoint(run_dir) else None,
        )
        self._not_to_run.add(job.number)  # this runner does not repeat an interrupted attempt
        self._begun[job.number] = time.monotonic() if self._is_inline else math.inf  # inf: not started yet
        self._store.change(replace(job, state="running", error=None))
        if self._is_inline:  # if the job kills this process, the next runner must find the attempt
            self._store.change_fields(job.number, attempts=(*job.attempts, attempt))
            self._store.flush()
        where = self._launcher.start(job.number)
        if not self._is_inline:  # if the runner is killed while the fork server starts, no attempt is recorded
            attempt = replace(attempt, started=now(), where=where or attempt.where)
            self._store.change_fields(job.number, attempts=(*job.attempts, attempt))
        self._begun[job.number] = min(self._begun[job.number], time.monotonic())
        if job.number in self._asked:  # asked before the launcher knew the process
            self._launcher.stop(job.number)

    def _record(self, ended: EndedJob) -> None:
        job, outcome = self._store.index.jobs[ended.number], ended.outcome
        self._begun.pop(job.number, None)
        asked = self._asked.pop(job.number, None)
        run_dir = self._store.directory / job.directory
        failure = ended.failure if asked is None else asked.failure
        entry = ended_entry(run_dir, job, outcome.exit_code, outcome.error, end=failure)
        is_asked = asked is not None and asked.failure is None
        if entry.state == "failed" and is_asked and outcome.exit_code < 0:  # killed after the grace time
            entry = replace(entry, state="interrupted" if has_checkpoint(run_dir) else "pending", error=None)
        may_repeat = failure is not None or outcome.exit_code < 0
        if entry.state == "failed" and may_repeat and len(entry.attempts) < self._settings.max_attempts:
            self._not_to_run.discard(entry.number)
            entry = replace(entry, state="interrupted" if has_checkpoint(run_dir) else "pending")
        if outcome.exit_code in (130, 143) and asked is None and self._is_inline and self._received is None:
            self._received = signal.SIGINT if outcome.exit_code == 130 else signal.SIGTERM
        self._store.change(entry)
        self._on_end(entry)
        self._num_failed += entry.state == "failed"
        limit = 0 if self._settings.on_failure == "stop" else self._settings.max_failures
        self._skips = self._skips or (limit is not None and self._num_failed > limit)

    def _say_interrupted(self) -> None:
        if self._received is not None and self._begun and not self._has_said:
            self._has_said = True
            num = len(self._begun)
            jobs = "The running job saves and ends" if num == 1 else f"The {num} running jobs save and end"
            again = "; press Ctrl-C again to kill them" if self._received == signal.SIGINT else ""
            self._say(f"Interrupted. {jobs}{again}.")

    @property
    def _is_inline(self) -> bool:
        """Whether the jobs run in this process, so that a signal to this process also reaches the running job."""
        return self._settings.launcher == "inline"

    def _end(self) -> int:
        index = self._store.index
        if self._skips and self._received is None:
            for job in index.jobs:
                if job.state == "pending" and not job.attempts and self._may_run(job):
                    self._store.change(replace(job, state="skipped"))
        jobs = self._store.index.jobs
        self._store.set(state=state_of(jobs))
        if self._received is not None:
            return 130 if self._received == signal.SIGINT else 143
        return 143 if self._is_stopped else 0 if {job.state for job in jobs} <= {*GOOD} else 1

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        """After the first signal, ask all jobs to save and end. After the second signal, kill them.

        Jobs that outlive this process are neither asked nor killed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._is_inline and self._asked:  # the watching thread has sent this signal
            self._launcher.interrupt(signal.Signals(number))
            return
        if self._launcher.outlives_runner:
            self._received = self._received or signal.Signals(number)
            return
        if self._received is not None:
            for job in list(self._begun):
                self._launcher.kill(job)
            return
        self._received = signal.Signals(number)
        for job in self._begun:
            self._asked.setdefault(job, _Asked(failure=None, since=time.monotonic()))
        self._launcher.interrupt(self._received)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        ended = threading.Event()
        thread = threading.Thread(target=self._keep_watch, args=(ended,), name="sweep", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _keep_watch(self, ended: threading.Event) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # only the main thread receives these signals
        while not ended.wait(_WATCH_SECONDS if self._watch is None else _PRUNING_SECONDS):
            try:
                self._look()
            except (OSError, SaveError) as error:  # for example, a full disk
                _log.warning("The jobs of the sweep cannot be watched: %s", error)

    def _look(self) -> None:
        """Ask jobs to end if they exceed a limit or were stopped. Kill jobs that do not end within the grace time."""
        now_seconds, settings = time.monotonic(), self._settings
        request = take_request(self._store.directory)
        if request is not None:
            self._is_stopped = self._is_stopped or request.jobs is None
            for number in range(len(self._store.index.jobs)) if request.jobs is None else request.jobs:
                self._not_to_run.add(number)
                self._ask(number, None)
        if settings.deadline_minutes is not None:
            self._skips = self._skips or now_seconds - self._started_seconds > settings.deadline_minutes * _MINUTE
        for number, begun in list(self._begun.items()):
            if settings.timeout_minutes is not None and now_seconds - begun > settings.timeout_minutes * _MINUTE:
                self._ask(number, f"out of time: took more than {settings.timeout_minutes:g} minutes")
            if settings.memory_gib is not None:
                used = self._launcher.memory_bytes(number) / _GIB
                if used > settings.memory_gib:
                    self._ask(number, f"out of memory: used {used:.3g} GiB of sweep.memory_gib={settings.memory_gib:g}")
            if self._store.index.jobs[number].num_steps is None:  # no plan was made before the job began
                num_steps = num_steps_of(self._store.directory / str(number))
                if num_steps is not None:
                    self._store.change_fields(number, num_steps=num_steps)
            if self._watch is not None and number not in self._asked:
                self._watch(self._store.index.jobs[number])
        for number, asked in list(self._asked.items()):
            if now_seconds - asked.since > settings.grace_seconds:
                self._launcher.kill(number)

    def _ask(self, number: int, failure: str | None) -> None:
        """Ask a running job to save and end, once."""
        if number in self._begun and number not in self._asked:
            self._asked[number] = _Asked(failure=failure, since=time.monotonic())
            self._launcher.stop(number)
