"""The runner with a launcher whose jobs end as a test says: order, limits, requests, signals and exit codes."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swept as small_sweeps
from loopwright.experiment.sweep import runner as runner_module
from loopwright.experiment.sweep.index import JobEntry, SweepIndex
from loopwright.experiment.sweep.launchers import EndedJob
from loopwright.experiment.sweep.one_job import JobOutcome
from loopwright.experiment.sweep.requests import StopRequest, write_request
from loopwright.experiment.sweep.runner import Runner
from loopwright.experiment.sweep.settings import SweepSettings
from loopwright.experiment.sweep.store import SweepStore

SUMMARIES = {"done": ("completed", 0), "failed": ("failed", 1), "killed": ("running", -9), "lost": ("running", 1)}


class Fake:
    """A launcher. The outcome of a job is a key of ``SUMMARIES``, "endless" or "stubborn".

    An endless job ends when it is asked to, a stubborn job when it is killed. A list has an outcome for each attempt.
    """

    outlives_runner = False

    def __init__(self, directory: Path, outcomes: Mapping[int, str | list[str]], num_slots: int = 1) -> None:
        self.directory = directory
        self.outcomes = {number: each if isinstance(each, list) else [each] for number, each in outcomes.items()}
        self.num_slots = num_slots
        self.started: list[int] = []
        self.running: dict[int, str] = {}
        self.most_running = 0
        self.on_start: Callable[[int], object] = lambda number: None
        self._ended: list[EndedJob] = []
        self._has_ended = threading.Event()

    @property
    def num_free(self) -> int:
        return self.num_slots - len(self.running)

    def start(self, number: int) -> str:
        assert self.num_free > 0
        self.started.append(number)
        outcomes = self.outcomes.get(number, ["done"])
        outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        self.running[number] = outcome
        self.most_running = max(self.most_running, len(self.running))
        self.on_start(number)
        if outcome in SUMMARIES:
            self.end(number, *SUMMARIES[outcome])
        return f"place {number}"

    def end(self, number: int, state: str, exit_code: int) -> None:
        (self.directory / str(number)).mkdir(exist_ok=True)
        summary = {"state": state, "objective": float(number), "error": "E: x" if state == "failed" else None}
        (self.directory / str(number) / "summary.json").write_text(json.dumps(summary))
        self._ended.append(EndedJob(number=number, outcome=JobOutcome(exit_code=exit_code)))
        self._has_ended.set()

    def submit(self) -> Mapping[int, str]:
        return {}

    def poll(self, timeout_seconds: float) -> Sequence[EndedJob]:
        if self.running and not self._ended:
            self._has_ended.wait(10)
        ended = self._ended[:1]
        del self._ended[:1]
        if not self._ended:
            self._has_ended.clear()
        for each in ended:
            self.running.pop(each.number)
        return ended

    def stop(self, number: int) -> None:
        if self.running.get(number) == "endless":
            self.end(number, "interrupted", 143)

    def kill(self, number: int) -> None:
        if self.running.get(number) in ("endless", "stubborn"):
            self.running[number] = "dying"
            self.end(number, "running", -9)

    def interrupt(self, received: signal.Signals) -> None:
        for number in list(self.running):
            self.stop(number)

    def memory_bytes(self, number: int) -> int:
        return 2 << 30


def pending(num_jobs: int) -> SweepIndex:
    """Return the index of a sweep whose jobs have not begun. Each is a group."""
    index = small_sweeps.swept([{"lr": number} for number in range(num_jobs)], [["pending"]] * num_jobs)
    return replace(index, jobs=tuple(replace(job, attempts=()) for job in index.jobs))


def run(
    directory: Path,
    outcomes: Mapping[int, str | list[str]],
    num_jobs: int = 3,
    *,
    num_slots: int = 1,
    only: Collection[int] | None = None,
    on_start: Callable[[int], object] = lambda number: None,
    **settings: Any,
) -> tuple[int, list[str], Fake, SweepStore]:
    """Run a sweep. Return the exit code, the states of the jobs, the launcher and the index."""
    launcher = Fake(directory, outcomes, num_slots)
    launcher.on_start = on_start
    store = SweepStore(directory, pending(num_jobs))
    ended: list[JobEntry] = []
    given = SweepSettings(**{"launcher": "process", **settings})
    code = Runner(store, launcher, given, on_end=ended.append, only=only).run()
    store.flush()
    states = [job.state for job in store.index.jobs]
    assert not launcher.running and {job.number for job in ended} == set(launcher.started)
    return code, states, launcher, store


@pytest.fixture(autouse=True)
def watching_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_WATCH_SECONDS", 0.002)


@given(outcomes=st.lists(st.sampled_from([*SUMMARIES]), max_size=5), num_slots=st.integers(1, 3))
def test_each_job_runs_once_in_order_and_the_exit_code_tells_of_failures(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[str], num_slots: int
) -> None:
    given = dict(enumerate(outcomes))
    code, states, launcher, store = run(
        tmp_path_factory.mktemp("sweep"), given, len(outcomes) or 1, num_slots=num_slots
    )
    assert launcher.started == list(range(len(outcomes) or 1))
    assert launcher.most_running <= num_slots
    assert states == ["done" if given.get(number, "done") == "done" else "failed" for number in range(len(states))]
    assert (code, store.index.state) == ((1, "failed") if "failed" in states else (0, "done"))
    assert all(job.attempts[-1].where == f"place {job.number}" for job in store.index.jobs)


def test_only_the_named_jobs_run(tmp_path: Path) -> None:
    code, states, _, store = run(tmp_path, {0: "failed"}, only=[1])
    assert (code, states, store.index.state) == (1, ["pending", "done", "pending"], "interrupted")


@pytest.mark.parametrize(
    ("settings", "states"),
    [
        ({}, ["failed", "failed", "done"]),
        ({"max_failures": 1}, ["failed", "failed", "skipped"]),
        ({"max_failures": 2}, ["failed", "failed", "done"]),
        ({"max_failures": 0}, ["failed", "skipped", "skipped"]),
        ({"on_failure": "stop"}, ["failed", "skipped", "skipped"]),
    ],
)
def test_after_too_many_failures_no_job_starts(tmp_path: Path, settings: dict[str, Any], states: list[str]) -> None:
    code, found, _, store = run(tmp_path, {0: "failed", 1: "failed"}, **settings)
    assert (code, found, store.index.state) == (1, states, "failed")


def test_a_job_that_was_killed_is_tried_again_but_not_one_that_raised(tmp_path: Path) -> None:
    outcomes = {0: ["killed", "killed", "done"], 1: "failed", 2: ["killed", "done"]}
    code, states, launcher, store = run(tmp_path, outcomes, max_attempts=2)
    assert (code, states) == (1, ["failed", "failed", "done"])
    assert sorted(launcher.started) == [0, 0, 1, 2, 2]
    ends = [[attempt.end for attempt in job.attempts] for job in store.index.jobs]
    assert ends == [["killed by SIGKILL"] * 2, ["raised"], ["killed by SIGKILL", "completed"]]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"timeout_minutes": 1e-9}, "out of time: took more than 1e-09 minutes"),
        ({"memory_gib": 1.5}, "out of memory: used 2 GiB of sweep.memory_gib=1.5"),
    ],
)
def test_a_job_beyond_a_limit_has_failed(tmp_path: Path, settings: dict[str, Any], error: str) -> None:
    outcomes = {0: "endless", 1: "stubborn"}
    code, states, _, store = run(tmp_path, outcomes, 2, num_slots=2, grace_seconds=0.01, **settings)
    assert (code, states) == (1, ["failed", "failed"])
    assert [(job.error, job.attempts[-1].end) for job in store.index.jobs] == [(error, error)] * 2


def test_nothing_starts_after_the_deadline(tmp_path: Path) -> None:
    def wait(number: int) -> None:
        for _ in range(2):  # the second request is found after the deadline was looked at
            write_request(tmp_path, StopRequest(()))
            while (tmp_path / "stop.json").exists():
                threading.Event().wait(0.001)

    code, states, _, _ = run(tmp_path, {}, deadline_minutes=1e-9, on_start=wait)
    assert (code, states) == (1, ["done", "skipped", "skipped"])


def test_a_request_ends_the_named_jobs(tmp_path: Path) -> None:
    def ask(number: int) -> None:
        if number == 0:
            write_request(tmp_path, StopRequest((0, 2)))

    code, states, _, store = run(tmp_path, {0: "endless"}, on_start=ask)
    assert (code, states, store.index.state) == (1, ["pending", "done", "pending"], "interrupted")
    assert not (tmp_path / "stop.json").exists()


def test_a_request_without_jobs_ends_the_sweep(tmp_path: Path) -> None:
    code, states, _, _ = run(
        tmp_path, {0: "endless"}, on_start=lambda number: write_request(tmp_path, StopRequest(None))
    )
    assert (code, states) == (143, ["pending", "pending", "pending"])


def test_a_request_to_an_earlier_runner_is_discarded(tmp_path: Path) -> None:
    write_request(tmp_path, StopRequest(None))
    assert run(tmp_path, {})[:2] == (0, ["done"] * 3)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_after_a_signal_the_jobs_save_and_nothing_starts(tmp_path: Path, number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)

    def interrupt(job: int) -> None:
        if job == 1:
            signal.raise_signal(number)

    found, states, launcher, store = run(tmp_path, {0: "endless", 1: "endless"}, num_slots=2, on_start=interrupt)
    assert (found, states, launcher.started) == (code, ["pending", "pending", "pending"], [0, 1])
    assert (store.index.state, signal.getsignal(number)) == ("interrupted", before)


def test_after_a_second_signal_the_jobs_are_killed(tmp_path: Path) -> None:
    def interrupt(job: int) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    code, states, _, store = run(tmp_path, {0: "stubborn"}, on_start=interrupt)
    assert (code, states) == (130, ["pending", "pending", "pending"])
    assert store.index.jobs[0].attempts[-1].exit_code == -9


def test_proposals_fill_the_free_slots_until_there_are_none(tmp_path: Path) -> None:
    store = SweepStore(tmp_path, pending(1))
    counts = []

    def propose(index: SweepIndex, count: int) -> Sequence[JobEntry]:
        counts.append(count)
        further = pending(min(5, len(index.jobs) + count))
        store.set(groups=further.groups, jobs=(*index.jobs, *further.jobs[len(index.jobs) :]))
        return store.index.jobs[len(index.jobs) :]

    launcher = Fake(tmp_path, {3: "failed"}, num_slots=2)
    code = Runner(store, launcher, SweepSettings(launcher="process"), on_end=lambda entry: None, propose=propose).run()
    assert (code, launcher.started, launcher.most_running) == (1, [0, 1, 2, 3, 4], 2)
    assert max(counts) <= 2
    store.flush()
