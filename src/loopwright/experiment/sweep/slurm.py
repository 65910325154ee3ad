"""`Slurm`: a launcher that submits the jobs of a sweep to Slurm through submitit (``pip install 'loopwright[slurm]'``).

All jobs that can start are submitted as one job array. The array continues when the runner ends. A later runner finds
the jobs by their IDs. The file ``exit_3.json`` in the folder ``slurm`` contains the exit code of job 3. If a job left
no such file, its state in Slurm is used.

With ``sweep.slurm.executor=local``, submitit starts each job as a process on this machine. submitit cannot find such a
process again after the runner has ended. Therefore, the jobs save and end with the runner, as with
``sweep.launcher=process``. After a time limit, submitit starts such a process again, at most five times.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from loopwright.errors import CheckpointError, SaveError, SettingError
from loopwright.experiment.console.messages import one_line_of
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.launch.submitted_job import SubmittedJob
from loopwright.experiment.sweep.attempts import set_aside_unsaved
from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.job_files import process_words
from loopwright.experiment.sweep.launchers import EndedJob, JobOutcome
from loopwright.experiment.sweep.reconcile import ended_entry, reconciled_job
from loopwright.experiment.sweep.settings import SweepSettings
from loopwright.experiment.sweep.slurm_executor import (
    LOCAL,
    check_slurm,
    make_executor,
    outcome_of_state,
    slurm_job,
    state_of,
    submitting,
)
from loopwright.experiment.sweep.slurm_queue import (
    FOLDER,
    LAUNCHER,
    exit_file,
    exit_record_of,
    kill_in_slurm,
    open_slurm_id,
    open_slurm_ids,
    place_of,
    queued_ids,
    request_file,
    stop_in_slurm,
)
from loopwright.records import COMPLETE, read_summary
from loopwright.regular_files import replace_file
from loopwright.run_lock import is_locked

_LOOK_SECONDS = 2.0  # between looks at the files of the jobs
_QUEUE_SECONDS = 20.0  # between questions to Slurm
_STOP_SECONDS = 5.0  # the same, after jobs were asked to end
_MISSES = 2  # a job without an exit file has ended if Slurm did not list it this often; the file may be late
_ALL_JOBS = 10_000  # largest number of jobs of a sweep


def make_slurm(directory: Path, settings: SweepSettings, threads: int, trust: Trust, taken: Mapping[int, str]) -> Slurm:
    """Return the launcher of a sweep. Nothing is written before the first job is submitted.

    All jobs of a grid are submitted at once. In a search, and with a deadline or a limit of failures, it is decided
    later which further jobs start. In these cases, and with the local executor, only as many jobs are submitted as run
    at a time.

    Args:
        directory: directory of the sweep.
        settings: settings of the sweep.
        threads: number of threads of each job.
        trust: packages that the user trusts.
        taken: IDs of the jobs that an earlier runner has submitted, by the number of the job.

    Raises:
        SettingError: if submitit or Slurm is missing, or for settings that have no effect with Slurm.
    """
    check_slurm(settings)
    if settings.slurm.executor == LOCAL:
        num_cores = os.cpu_count() or 1
        given = settings.num_parallel
        capacity = given if isinstance(given, int) else max(1, num_cores // threads)
    else:
        limits = (settings.max_failures, settings.deadline_minutes)
        depends = settings.is_search or settings.on_failure == "stop" or limits != (None, None)
        capacity = settings.slurm.max_parallel if depends else _ALL_JOBS
    return Slurm(directory, trust, settings, capacity, taken)


def settled(directory: Path, index: SweepIndex) -> SweepIndex:
    """Return the index with the final states of the submitted jobs that Slurm no longer lists.

    Raises:
        SettingError: if the end of a submitted job is not recorded, and submitit is missing or Slurm does not answer.
    """
    left = open_slurm_ids(index)
    if not left:
        return index
    queued = queued_ids()
    for number, slurm_id in left.items():
        if slurm_id in queued:
            continue
        job = reconciled_job(directory, index.jobs[number])  # its exit code may have appeared since the index was read
        if open_slurm_id(job) is not None:
            code, failure = outcome_of_state(state_of(slurm_job(directory, slurm_id)))
            job = ended_entry(directory / job.directory, job, code, end=failure)
        index = index.with_job(job)
    return index


class Slurm:
    """Runs each job in a job of Slurm.

    Args:
        directory: directory of the sweep, which all machines share.
        trust: packages that the user trusts.
        settings: settings of the sweep.
        capacity: maximum number of jobs that wait in the queue or run at a time.
        taken: IDs of the jobs that an earlier runner has submitted, by the number of the job.
    """

    def __init__(
        self, directory: Path, trust: Trust, settings: SweepSettings, capacity: int, taken: Mapping[int, str]
    ) -> None:
        self._directory = directory.absolute()
        self._trust = trust
        self._settings = settings
        self._is_local = settings.slurm.executor == LOCAL
        self._capacity = capacity
        self._executor: Any = None
        self._started: list[int] = []  # jobs that the next call of `submit` submits
        self._not_started: list[EndedJob] = []
        self._running = {number: slurm_job(directory, slurm_id) for number, slurm_id in taken.items()}
        self._misses: dict[int, int] = {}
        self._to_stop: set[int] = set()
        self._to_kill: set[int] = set()
        self._killed: set[int] = set()
        self._asked: set[int] = set()
        self._next_look = self._next_question = 0.0

    @property
    def num_free(self) -> int:
        """Number of jobs that can be submitted now."""
        return max(0, self._capacity - len(self._running) - len(self._started))

    @property
    def outlives_runner(self) -> bool:
        """Whether the jobs continue when the runner ends: True, except with the local executor."""
        return not self._is_local

    def start(self, number: int) -> str:
        """Collect a job for `submit`. If its files cannot be prepared, `poll` returns it as a job that has failed."""
        try:
            set_aside_unsaved(self._directory / str(number))
            for file in (exit_file(self._directory, number), request_file(self._directory, number)):
                file.unlink(missing_ok=True)  # left by an earlier attempt
        except (OSError, SaveError, CheckpointError) as error:
            outcome = JobOutcome(exit_code=1, error=f"not started: {one_line_of(error)}")
            self._not_started.append(EndedJob(number=number, outcome=outcome))
        else:
            self._started.append(number)
        return ""

    def submit(self) -> Mapping[int, str]:
        """Submit the started jobs as one array, and return where each runs.

        Raises:
            SettingError: if Slurm does not accept the jobs.
        """
        if not self._started:
            return {}
        numbers, self._started = self._started, []
        try:
            with submitting():
                if self._executor is None:
                    self._executor = make_executor(self._directory, self._settings)
                jobs = self._executor.submit_array([self._submitted(number) for number in numbers])
        except (RuntimeError, OSError) as error:
            raise SettingError(LAUNCHER, f"=slurm: the jobs were not submitted: {one_line_of(error)}") from None
        self._running |= zip(numbers, jobs, strict=True)
        self._next_question = time.monotonic() + _QUEUE_SECONDS
        return {number: self._place(job) for number, job in zip(numbers, jobs, strict=True)}

    def poll(self, timeout_seconds: float) -> Sequence[EndedJob]:
        """Wait for the timeout, and return the jobs that have ended since the last call."""
        if self._not_started:
            ended, self._not_started = self._not_started, []
            return ended
        time.sleep(timeout_seconds)
        self._cancel()
        ended = self._find_ended()
        for each in ended:
            del self._running[each.number]
            self._misses.pop(each.number, None)
            self._asked.discard(each.number)
            self._killed.discard(each.number)
            _refresh(self._directory / str(each.number))
        return ended

    def stop(self, number: int) -> None:
        """Ask a job to save and end, or remove it from the queue. `poll` sends the request."""
        self._to_stop.add(number)

    def kill(self, number: int) -> None:
        """End a job. `poll` sends the request, once."""
        if number not in self._killed:
            self._killed.add(number)
            self._to_kill.add(number)

    def interrupt(self, received: signal.Signals) -> None:
        """With the local executor, ask all jobs to save and end."""
        if self._is_local:
            self._to_stop |= set(self._running)

    def memory_bytes(self, number: int) -> int:
        """Return 0, because ``sweep.memory_gib`` is refused with Slurm."""
        return 0

    def _find_ended(self) -> list[EndedJob]:
        if self._is_local:
            found = [self._ended_locally(number, job) for number, job in self._running.items()]
        elif time.monotonic() < self._next_look:
            return []
        else:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            _refresh(self._directory / FOLDER)
            left = self._left_queue()
            found = [self._ended(number, job, is_missing=number in left) for number, job in self._running.items()]
        return [each for each in found if each is not None]

    def _submitted(self, number: int) -> SubmittedJob:
        words = process_words(self._trust.flags, self._directory, number)
        return SubmittedJob(
            words=[sys.executable, "-P", "-m", "loopwright", *words],
            cwd=str(Path.cwd()),
            output=str(self._directory / str(number) / "output.log"),
            exit_file=str(exit_file(self._directory, number)),
            request_file=str(request_file(self._directory, number)) if self._is_local else None,
        )

    def _place(self, job: Any) -> str:
        return f"pid {job.job_id}" if self._is_local else place_of(job.job_id)

    def _cancel(self) -> None:
        """Send the requests of `stop` and `kill`."""
        stopped, killed = (self._take(numbers) for numbers in (self._to_stop, self._to_kill))
        if self._is_local:
            for number, request in [*dict.fromkeys(stopped, "stop").items(), *dict.fromkeys(killed, "kill").items()]:
                replace_file(request_file(self._directory, number), request.encode())
            return
        for numbers, cancel in ((stopped, stop_in_slurm), (killed, kill_in_slurm)):
            if numbers:
                cancel([self._running[number].job_id for number in numbers])
                self._asked |= set(numbers)
                self._next_question = min(self._next_question, time.monotonic() + _STOP_SECONDS)

    def _take(self, numbers: set[int]) -> list[int]:
        """Remove the numbers from the set, and return the numbers of running jobs. Other threads may add numbers."""
        taken = set(numbers)
        numbers -= taken
        return sorted(taken & set(self._running))

    def _left_queue(self) -> Collection[int]:
        """Return the numbers of the jobs that Slurm no longer lists. Slurm is asked only at intervals."""
        now_seconds = time.monotonic()
        if self._running and now_seconds >= self._next_question:
            self._next_question = now_seconds + (_STOP_SECONDS if self._asked else _QUEUE_SECONDS)
            try:
                queued = queued_ids()
            except SettingError:  # for example, the server of Slurm is being restarted
                return []
            for number, job in self._running.items():
                self._misses[number] = 0 if job.job_id in queued else self._misses.get(number, 0) + 1
        return [number for number, count in self._misses.items() if count >= _MISSES]

    def _ended(self, number: int, job: Any, *, is_missing: bool) -> EndedJob | None:
        record = exit_record_of(self._directory, number, job.job_id)
        if record is not None:
            return EndedJob(number=number, outcome=JobOutcome(exit_code=record.exit_code), failure=record.failure)
        if not is_missing:
            return None
        code, failure = outcome_of_state(state_of(job))
        return EndedJob(number=number, outcome=JobOutcome(exit_code=code), failure=failure)

    def _ended_locally(self, number: int, job: Any) -> EndedJob | None:
        run_dir = self._directory / str(number)
        if not job.done():
            return None
        record = exit_record_of(self._directory, number, job.job_id)
        if record is not None:
            return EndedJob(number=number, outcome=JobOutcome(exit_code=record.exit_code), failure=record.failure)
        if is_locked(run_dir):  # submitit killed the parent process of the run, and the run is saving
            return None
        state = None
        with suppress(CheckpointError):
            state = read_summary(run_dir).get("state")
        code = 0 if state in COMPLETE else 143 if state == "interrupted" else 1
        error = f"the job left no exit code; see {FOLDER}/{job.job_id}_0_log.err"
        return EndedJob(number=number, outcome=JobOutcome(exit_code=code, error=error))


def _refresh(folder: Path) -> None:
    """Make a network file system show new files: setting the mode of a folder discards its cached content."""
    with suppress(OSError):
        os.chmod(folder, os.stat(folder).st_mode)
