"""`RunFollower` reads appended metrics once; rates and remaining times are computed from the times that are passed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.screen import following
from loopwright.experiment.sweep.screen.following import (
    JobFollowers,
    Pace,
    Progress,
    RunFollower,
    RunningJob,
    num_jobs_of,
    progress,
    progress_bar,
    progress_cells,
    sweep_seconds_left,
)
from loopwright.records import read_series
from swept import swept


def line(step: int, value: float | str = 0.5, name: str = "val/loss") -> str:
    return json.dumps({"step": step, "name": name, "value": value}) + "\n"


def write(directory: Path, *lines: str, mode: str = "a") -> None:
    with (directory / "metrics.jsonl").open(mode) as file:
        file.writelines(lines)


def steps_of(follower: RunFollower) -> list[int]:
    return [step for step, _, _ in follower.read()]


def test_only_new_entries_are_returned(tmp_path: Path) -> None:
    follower = RunFollower(tmp_path / "0")
    assert follower.read() == []
    assert (follower.step, dict(follower.latest)) == (0, {})
    (tmp_path / "0").mkdir()
    write(tmp_path / "0", line(10, 0.5), line(10, 0.25, "val/accuracy"))
    assert follower.read() == [(10, "val/loss", 0.5), (10, "val/accuracy", 0.25)]
    assert follower.read() == []
    write(tmp_path / "0", line(20, 0.125))
    assert follower.read() == [(20, "val/loss", 0.125)]
    assert (follower.step, dict(follower.latest)) == (20, {"val/loss": 0.125, "val/accuracy": 0.25})


@given(cuts=st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=25, deadline=None)
def test_an_incomplete_line_is_read_when_it_is_complete(cuts: Sequence[int]) -> None:
    text = "".join(line(step, 1 / step) for step in range(1, 5))
    with tempfile.TemporaryDirectory() as folder:
        directory, follower, found = Path(folder), RunFollower(Path(folder)), []
        for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(text)], strict=True):
            write(directory, text[start:stop])
            found += follower.read()
        series = read_series(directory)["val/loss"]
    assert found == [(step, "val/loss", value) for step, value in zip(series.steps, series.values, strict=True)]


def test_lines_that_cannot_be_parsed_are_skipped(tmp_path: Path) -> None:
    write(
        tmp_path, "{}\n", "[1]\n", "\n", "\0\0\n", line(1, "Infinity"), '{"step": Infinity, "name": "a", "value": 1}\n'
    )
    assert RunFollower(tmp_path).read() == [(1, "val/loss", float("inf"))]


def test_a_resumed_run_is_read_on(tmp_path: Path) -> None:
    follower = RunFollower(tmp_path)
    write(tmp_path, line(10), line(20), line(30))
    follower.read()
    write(tmp_path, line(10), line(20), mode="r+")
    os.truncate(tmp_path / "metrics.jsonl", len(line(10) + line(20)))
    assert steps_of(follower) == [10, 20]  # the file is shorter than before
    assert follower.step == 20
    write(tmp_path, line(30))
    follower.read()
    os.truncate(tmp_path / "metrics.jsonl", len(line(10)))
    write(tmp_path, line(20), line(30), line(40))
    assert steps_of(follower) == [40]  # between the two reads, equal lines were written again
    os.truncate(tmp_path / "metrics.jsonl", len(line(10)))
    write(tmp_path, line(20), line(30), line(40, 0.9), line(50, 0.8))
    assert steps_of(follower) == [10, 20, 30, 40, 50]  # a line differs


def test_a_replaced_file_is_read_from_the_start(tmp_path: Path) -> None:
    follower = RunFollower(tmp_path / "0")
    (tmp_path / "0").mkdir()
    write(tmp_path / "0", line(10), line(20))
    follower.read()
    (tmp_path / "0").rename(tmp_path / "0.attempt1")
    assert follower.read() == []
    assert (follower.step, dict(follower.latest)) == (0, {})
    (tmp_path / "0").mkdir()
    write(tmp_path / "0", line(10), line(20), line(30))
    assert steps_of(follower) == [10, 20, 30]


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    write(tmp_path, line(10))
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "metrics.jsonl").symlink_to(tmp_path / "metrics.jsonl")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "metrics.jsonl")
    (tmp_path / "folder" / "metrics.jsonl").mkdir(parents=True)
    for name in ("link", "pipe", "folder"):
        assert RunFollower(tmp_path / name).read() == []


def test_a_call_reads_a_limited_number_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_MAX_READ_BYTES", 100)
    write(tmp_path, line(10), line(20), line(30), "x" * 250 + "\n", line(40))
    follower = RunFollower(tmp_path)
    assert [steps_of(follower) for _ in range(6)] == [[10, 20], [30], [], [], [40], []]


def test_a_rate_needs_two_steps_and_forgets_old_ones() -> None:
    pace = Pace()
    assert pace.steps_per_second is None
    pace.add(100, 1.0)
    pace.add(100, 2.0)
    assert (pace.steps_per_second, pace.seconds_to(200, 2.0)) == (None, None)
    pace.add(300, 3.0)
    assert pace.steps_per_second == 100
    assert [pace.seconds_to(700, now) for now in (3.0, 4.0, 5.0, 60.0)] == [4.0, 3.0, 2.0, 2.0]
    assert pace.seconds_to(300, 9.0) == 0
    pace.add(400, 103.0)
    pace.add(420, 113.0)
    pace.add(440, 173.0)
    assert pace.steps_per_second == pytest.approx(20 / 60)
    pace.add(100, 174.0)
    assert pace.steps_per_second is None


def test_progress_shows_the_objective_or_else_a_loss(tmp_path: Path) -> None:
    follower = RunFollower(tmp_path)
    assert progress(follower, 0.0, num_steps=50) == Progress(num_steps=50)
    write(tmp_path, line(10, 0.7, "lr"), line(10, 0.5, "train/loss"))
    follower.read()
    assert progress(follower, 1.0, num_steps=50, objective="val/accuracy") == Progress(
        step=10, num_steps=50, metric="train/loss", value=0.5
    )
    write(tmp_path, line(20, 0.75, "val/accuracy"))
    follower.read()
    assert progress(follower, 3.0, num_steps=50, objective="val/accuracy") == Progress(
        step=20, num_steps=50, metric="val/accuracy", value=0.75, steps_per_second=5.0, seconds_left=6.0
    )
    assert progress(follower, 3.0).seconds_left is None


def test_the_text_of_progress() -> None:
    found = Progress(step=900, num_steps=2000, metric="val/loss", value=0.1042, steps_per_second=171, seconds_left=6.6)
    assert progress_cells(found) == ("900/2,000", "val/loss 0.1042", "171 steps/s", "0:07 left")
    assert progress_cells(replace(found, step=2000))[3] == ""
    assert progress_cells(replace(found, num_steps=None, value=float("nan"))) == (
        "step 900",
        "val/loss not finite",
        "171 steps/s",
        "",
    )
    assert progress_cells(Progress(num_steps=2000)) == ("", "", "", "")
    assert progress_bar(found, 20, tick=0) == "━━━━━━━━━╸──────────"
    assert [progress_bar(replace(found, step=step), 4, tick=0) for step in (1, 1999, 2000)] == ["╸───", "━━━╸", "━━━━"]
    assert [progress_bar(Progress(), 5, tick) for tick in range(3)] == ["━━━──", "─━━━─", "──━━━"]


def sweep(*states: float | str, num_parallel: int | str = 2, seconds: float = 10.0) -> SweepIndex:
    index = swept([{"a": number} for number in range(len(states))], [[state] for state in states])
    jobs = tuple(replace(job, seconds=seconds if job.state == "done" else 0.0, num_steps=100) for job in index.jobs)
    return replace(index, jobs=jobs, settings={"num_parallel": num_parallel})


def running(index: SweepIndex, seconds: float, *lefts: float | None) -> list[RunningJob]:
    entries = [job for job in index.jobs if job.state == "running"]
    return [
        RunningJob(entry=entry, progress=Progress(seconds_left=left), seconds=seconds)
        for entry, left in zip(entries, lefts, strict=True)
    ]


def test_the_time_left_is_unknown_until_a_duration_is_known() -> None:
    index = sweep("running", "running", "failed", "pending")
    assert sweep_seconds_left(index, running(index, 4.0, None, None)) is None
    assert sweep_seconds_left(index, running(index, 4.0, 6.0, None)) == 16.0  # a job takes 10 s
    assert sweep_seconds_left(sweep("pending"), []) is None
    assert sweep_seconds_left(sweep("failed"), []) == 0.0


def test_the_time_left_follows_the_slots() -> None:
    index = sweep(1.0, "running", "running", "pending", "pending", "pending")
    assert sweep_seconds_left(index, running(index, 4.0, None, None)) == 26.0
    assert sweep_seconds_left(index, running(index, 4.0, 1.0, 40.0)) == 40.0
    assert sweep_seconds_left(index, running(index, 4.0, 1.0, 2.0)) == 21.0
    index = sweep(1.0, "running", "pending", num_parallel="auto")
    assert sweep_seconds_left(index, running(index, 12.0, None)) == 10.0
    many = sweep(1.0, *["pending"] * 1200, num_parallel=3)
    assert sweep_seconds_left(many, []) == pytest.approx(4000, rel=0.01)


def test_proposals_that_are_not_made_yet_are_counted() -> None:
    index = replace(sweep(1.0, "pending"), settings={"search": "tpe", "num_proposals": 40}, seeds=(0, 1, 2))
    assert num_jobs_of(index) == 120
    assert num_jobs_of(replace(index, settings={"search": "auto", "num_proposals": 40})) == 2


def test_running_jobs_are_followed_from_their_start(tmp_path: Path) -> None:
    index = sweep("running", "pending")
    followers = JobFollowers(tmp_path)
    (tmp_path / "0").mkdir()
    assert [job.seconds for job in followers.read(index, 5.0)] == [0.0]
    write(tmp_path / "0", line(10))
    (job,) = followers.read(index, 7.0)
    assert (job.entry, job.seconds, job.progress.step, job.progress.num_steps) == (index.jobs[0], 2.0, 10, 100)
    assert followers.read(sweep(1.0, "pending"), 8.0) == []
    assert [job.seconds for job in followers.read(index, 9.0)] == [0.0]  # a new attempt
