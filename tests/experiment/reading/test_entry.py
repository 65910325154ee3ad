"""Entries of the list of runs: what is read of runs, sweeps and jobs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from command import run_in, small_run
from left_runs import leave_run
from loopwright.experiment.reading.entry import Entry, read_entries, read_jobs, run_entry, time_in_name
from loopwright.run_lock import hold


def only(entries: list[Entry]) -> Entry:
    (entry,) = entries
    return entry


def test_a_run_with_the_best_value_of_another_metric_has_no_best_objective(tmp_path: Path) -> None:
    best = {"name": "val/accuracy", "value": 0.9, "step": 20}
    entry = run_entry(leave_run(tmp_path, "aaaaaa", objective=0.5, best=best))
    assert (entry.objective, entry.best, entry.best_step) == (0.5, None, None)


def test_a_killed_run_has_its_last_logged_values(tmp_path: Path) -> None:
    run = leave_run(tmp_path, "aaaaaa", state="running", global_step=0, values={"val/loss": [0.5, 0.25, 0.75]})
    entry = run_entry(run)
    assert (entry.state, entry.global_step, entry.objective) == ("lost", 30, 0.75)
    assert (entry.best, entry.best_step) == (0.25, 20)
    with hold(run):
        assert run_entry(run).state == "running"


@pytest.mark.parametrize(
    ("origins", "text"),
    [
        ({}, None),
        ({"outputs/a/2026-11-01_00-00-00_6b7ccb/checkpoints/step_00002000": "0" * 64}, "6b7ccb, step 2,000"),
        ({"/mine/checkpoints/step_00000008": None}, "mine, step 8"),
        ({"weights.safetensors": None}, "weights.safetensors"),
        ({"a": None, "b": None}, "2 checkpoints"),
        ([1, 2], None),
    ],
)
def test_the_origin_is_a_run_and_a_step(origins: object, text: str | None, tmp_path: Path) -> None:
    assert run_entry(leave_run(tmp_path, "aaaaaa", origins=origins)).origin == text


def test_the_time_in_the_name_replaces_a_missing_time(tmp_path: Path) -> None:
    run = leave_run(tmp_path, "aaaaaa", started=None)
    assert run_entry(run).started == time_in_name(run) is not None
    for name in ("9999-12-31_23-59-59_aaaaaa", "0001-01-01_00-00-00_aaaaaa", "2026-13-01_00-00-00_aaaaaa", "mine"):
        assert time_in_name(Path(name)) is None


@pytest.fixture(scope="module")
def sweep_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four jobs, which all tests of this module share."""
    root = tmp_path_factory.mktemp("swept")
    words = [
        "-m",
        "optimizer.lr=0.1,0.2",
        "seed=0,1",
        "hydra.sweep.dir=outputs/digits/2026-11-01_00-00-00_abcdef_sweep",
    ]
    assert run_in(root, *small_run(*words)).code == 0
    return root


@pytest.fixture
def swept(sweep_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sweep_once / "outputs", tmp_path / "outputs"))


@pytest.mark.slow
def test_a_sweep_is_one_entry_with_the_values_of_its_best_group(swept: Path) -> None:
    sweep = only(read_entries(swept))
    jobs = read_jobs(sweep)
    assert (sweep.kind, sweep.id, sweep.name, sweep.state) == ("sweep", "abcdef", "digits", "completed")
    assert (sweep.num_jobs, sweep.num_done, sweep.swept) == (4, 4, "sweep of lr × 2 seeds")
    assert [job.id for job in jobs] == [f"abcdef/{number}" for number in range(4)]
    assert {job.state for job in jobs} == {"completed"} and jobs[0].name == "digits"
    assert jobs[3].changes["optimizer.lr"][1] == 0.2
    means = [sum(job.objective or 0 for job in jobs[start : start + 2]) / 2 for start in (0, 2)]
    assert sweep.objective == pytest.approx(min(means)) and sweep.global_step == 4


@pytest.mark.slow
def test_the_states_of_a_killed_sweep(swept: Path) -> None:
    directory = only(read_entries(swept)).directory
    index = (directory / "sweep.json").read_text()
    killed = index.replace(' "state": "done",\n "objective": {', ' "state": "running",\n "objective": {', 1)
    assert killed != index
    (directory / "sweep.json").write_text(killed)
    assert only(read_entries(swept)).state == "lost"
    with hold(directory):
        assert only(read_entries(swept)).state == "running"


def test_a_damaged_index_is_an_unreadable_entry(swept: Path) -> None:
    directory = only(read_entries(swept)).directory
    (directory / "sweep.json").write_text("{")
    entry = only(read_entries(swept))
    assert entry.state == "unreadable" and entry.error is not None and "sweep.json" in entry.error
    assert read_jobs(entry) == []


def test_a_job_without_a_summary_has_the_values_in_the_index(swept: Path) -> None:
    sweep = only(read_entries(swept))
    (sweep.directory / "2" / "summary.json").unlink()
    job = read_jobs(sweep)[2]
    assert job.id == "abcdef/2" and job.changes["optimizer.lr"][1] == 0.2 and job.state == "completed"
    assert job.global_step == 4 and job.objective == job.metrics["val/loss"]
