"""Sweeps with real processes: failures, killed runners, signals, limits, and what is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from command import Answer, environment, run_process, small_run
from sweep_processes import FAULT, LIMIT_SECONDS, Command, is_left_alone, wait_for

pytestmark = pytest.mark.slow

FAULTY = ("--trust=mine", "+callbacks.fault._target_=mine.Fault", "data.num_train=96", "device.num_threads=1")
BASE = small_run(*FAULTY, "loop.max_steps=24", "loop.eval_frequency=8", "checkpoint.every_n_steps=8")
LONG = small_run(*FAULTY, "loop.max_steps=2400", "loop.eval_frequency=8", "checkpoint.every_n_steps=8")
TWELVE = [*BASE, "loop.grad_accum_steps=1,2", "seed=0,1,2,3,4,5"]
PARALLEL = "sweep.num_parallel=2"
launchers = pytest.mark.parametrize("launcher", ["inline", "process"])


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FAULT)
    return tmp_path


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the twelve jobs, run one after another without a failure."""
    root = tmp_path_factory.mktemp("straight")
    (root / "mine.py").write_text(FAULT)
    code, done = run(root, "-m", *TWELVE, "hydra.sweep.dir=s")
    assert code == 0, done.err
    return root / "s"


def run(there: Path, *words: str) -> tuple[int, Answer]:
    _, answer = run_process(there, *words)
    return answer.code, answer


def parallel(launcher: str) -> list[str]:
    return [PARALLEL] if launcher == "process" else []


def jobs_of(directory: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((directory / "sweep.json").read_text())["jobs"]
    return found


def states(directory: Path) -> str:
    """Return the first letters of the states of the jobs."""
    return "".join(job["state"][0] for job in jobs_of(directory))


def is_equal(directory: Path, expected: Path) -> bool:
    """Return whether two sweeps have equal weights, metrics and tables. Durations are not compared."""
    pairs = list(zip(jobs_of(directory), jobs_of(expected), strict=True))
    assert [one["weights_sha256"] for one, _ in pairs] == [other["weights_sha256"] for _, other in pairs]
    for one, _ in pairs:
        name = f"{one['number']}/metrics.jsonl"
        assert (directory / name).read_bytes() == (expected / name).read_bytes(), name
    tables = [(each / "sweep.md").read_text().split("\n- ")[0].splitlines()[4:] for each in (directory, expected)]
    assert tables[0] == tables[1]
    return True


@launchers
def test_jobs_that_fail_end_no_other_job_and_are_retried(there: Path, straight: Path, launcher: str) -> None:
    faults = [there / name for name in ("raise-3", "kill-6", "poison-9")]
    for each in faults:
        each.touch()
    (there / "print-4").touch()
    code, done = run(there, "-m", *TWELVE, "hydra.sweep.dir=s", *parallel(launcher))
    if launcher == "inline":  # the killed job has killed the runner
        assert code == -signal.SIGKILL and states(there / "s") == "dddfddrppppp"
        code, done = run(there, "sweep", "resume", "--trust=mine", "s")
        assert code == -signal.SIGKILL
        code, done = run(there, "sweep", "resume", "--trust=mine", "s")
    assert code == 1, done.err
    assert states(there / "s") == "dddfddfddfdd"
    causes = [job["error"] for job in jobs_of(there / "s") if job["error"]]
    assert causes[0].startswith("RuntimeError: boom")
    assert "killed" in causes[1] and causes[2].startswith("NonFiniteError")
    assert "9 of 12 jobs done, 3 failed" in done.out and "sweep retry --trust=mine s" in done.out
    if launcher == "process":
        assert "progress 50 %" in (there / "s" / "4" / "output.log").read_text()
    for each in faults:
        each.unlink()
    before = (there / "memory.txt").read_text().count("\n")
    code, done = run(there, "sweep", "retry", "--trust=mine", "s")
    assert code == 0, done.err
    assert (there / "memory.txt").read_text().count("\n") == before + 3
    assert is_equal(there / "s", straight)
    assert is_left_alone(there)


@launchers
def test_killed_runners_lose_nothing(there: Path, straight: Path, launcher: str) -> None:
    (there / "slow-2").touch()
    (there / "slow-3").touch()
    with Command(there, "-m", *TWELVE, "hydra.sweep.dir=s", *parallel(launcher)) as command:
        wait_for((there / "s" / "2" / "checkpoints" / "step_00000008").exists, command)
        command.signal(signal.SIGKILL)
    assert is_left_alone(there)
    if launcher == "process":  # the job has saved, although its runner was gone
        assert json.loads((there / "s" / "2" / "summary.json").read_text())["state"] == "interrupted"
    (there / "slow-2").unlink()
    (there / "slow-3").unlink()
    code, done = run(there, "sweep", "resume", "--trust=mine", "s")
    assert code == 0, done.err
    assert is_equal(there / "s", straight)


@pytest.mark.parametrize(
    ("launcher", "number", "expected"),
    [("inline", signal.SIGINT, 130), ("process", signal.SIGINT, 130), ("process", signal.SIGTERM, 143)],
)
def test_a_signal_saves_the_running_jobs(there: Path, launcher: str, number: signal.Signals, expected: int) -> None:
    (there / "slow").touch()
    words = [*LONG, "seed=0,1,2", "hydra.sweep.dir=s", *parallel(launcher)]
    with Command(there, "-m", *words) as command:
        wait_for((there / "s" / "0" / "metrics.jsonl").exists, command)
        command.signal_group(number)
        code, text = command.end()
    assert is_left_alone(there)
    assert code == expected, text
    assert states(there / "s") == ("ipp" if launcher == "inline" else "iip")  # an interrupted job has a checkpoint
    assert "Resume: loopwright sweep resume --trust=mine s" in text and "Traceback" not in text


def test_a_second_signal_kills_the_jobs(there: Path) -> None:
    (there / "stuck-0").touch()
    with Command(there, "-m", *LONG, "seed=0,1", "hydra.sweep.dir=s", PARALLEL) as command:
        wait_for((there / "s" / "0" / "checkpoints" / "step_00000008").exists, command)
        command.signal_group(signal.SIGINT)
        wait_for(lambda: "press Ctrl-C again" in (there / "command.log").read_text(), command)
        command.signal_group(signal.SIGINT)
        code, text = command.end()
    assert is_left_alone(there)
    assert code == 130, text
    assert states(there / "s")[0] == "i"


@launchers
def test_jobs_and_sweeps_are_stopped_from_outside(there: Path, launcher: str) -> None:
    (there / "slow").touch()
    with Command(there, "-m", *LONG, "seed=0,1,2,3,4", "hydra.sweep.dir=s", *parallel(launcher)) as command:
        wait_for((there / "s" / "0" / "metrics.jsonl").exists, command)
        code, second = run(there, "sweep", "resume", "--trust=mine", "s")
        holder = json.loads((there / "s" / ".lock").read_text())["process_id"]
        assert code == 3 and f"in use by process {holder}" in second.err
        assert run(there, "sweep", "stop", "s", "jobs=0,1")[0] == 0
        wait_for((there / "s" / "2" / "metrics.jsonl").exists, command)
        assert run(there, "sweep", "stop", "s")[0] == 0
        code, text = command.end()
    assert code == 143, text
    assert is_left_alone(there)
    assert states(there / "s") == ("ipipp" if launcher == "inline" else "iiiip")


@launchers
def test_a_job_that_takes_too_long_is_saved_and_retried(there: Path, launcher: str) -> None:
    (there / "slow-0").touch()
    (there / "stuck-1").touch()
    seeds = "seed=0" if launcher == "inline" else "seed=0,1"
    limits = ("sweep.timeout_minutes=0.1", "sweep.grace_seconds=4")
    code, done = run(there, "-m", *BASE, seeds, "hydra.sweep.dir=s", *limits, *parallel(launcher))
    assert code == 1, done.err
    jobs = jobs_of(there / "s")
    assert all(job["error"].startswith("out of time: took more than 0.1 minutes") for job in jobs)
    assert [job["attempts"][0]["exit_code"] for job in jobs] == [143, -signal.SIGKILL][: len(jobs)]
    assert jobs[0]["global_step"] >= 1
    (there / "slow-0").unlink()
    (there / "stuck-1").unlink()
    code, done = run(there, "sweep", "retry", "--trust=mine", "s", "sweep.timeout_minutes=null")
    assert code == 0, done.err
    assert all(job["attempts"][1]["resumed_from"] is not None for job in jobs_of(there / "s"))


def test_limits_of_memory_time_and_attempts(there: Path) -> None:
    (there / "slow-0").touch()
    limits = ("sweep.memory_gib=0.01", "sweep.deadline_minutes=0.01")
    code, done = run(there, "-m", *BASE, "seed=0,1", "hydra.sweep.dir=m", "sweep.launcher=process", *limits)
    assert code == 1, done.err
    assert states(there / "m") == "fs"
    assert "of sweep.memory_gib=0.01" in jobs_of(there / "m")[0]["error"]
    (there / "slow-0").unlink()
    (there / "once-0").touch()
    (there / "kill-1").touch()
    attempts = ("sweep.max_attempts=2", PARALLEL)
    code, done = run(there, "-m", *BASE, "seed=0,1", "hydra.sweep.dir=a", *attempts)
    assert code == 1, done.err
    assert states(there / "a") == "df"
    assert [len(job["attempts"]) for job in jobs_of(there / "a")] == [2, 2]
    assert jobs_of(there / "a")[0]["attempts"][1]["resumed_from"] == "step_00000008"


def test_a_bad_job_of_a_search_is_pruned_at_its_next_validation(there: Path) -> None:
    (there / "slow-5").touch()
    search = ("optimizer.lr=tag(log,interval(1e-9,1e-2))", "sweep.search=random", "sweep.num_proposals=6")
    words = ("sweep.pruner=median", "sweep.launcher=process", "sweep.seed=2", "hydra.sweep.dir=s")
    code, done = run(there, "-m", *BASE, *search, *words)
    assert code == 0, done.err
    assert states(there / "s") == "dddddp"
    assert jobs_of(there / "s")[5]["global_step"] == 16


def test_jobs_of_several_processes(there: Path) -> None:
    words = [*BASE, "device.num_processes=2"]
    code, done = run(there, *words, "seed=1", "hydra.run.dir=alone")
    assert code == 0, done.err
    alone = json.loads((there / "alone" / "summary.json").read_text())
    (there / "slow-1").touch()
    with Command(there, "-m", *words, "seed=0,1", "hydra.sweep.dir=s", "sweep.launcher=process") as command:
        wait_for((there / "s" / "1" / "checkpoints" / "step_00000008").exists, command)
        command.signal(signal.SIGKILL)
        assert is_left_alone(there, within_seconds=30.0)
    (there / "slow-1").unlink()
    code, done = run(there, "sweep", "resume", "--trust=mine", "s")
    assert code == 0, done.err
    assert jobs_of(there / "s")[1]["weights_sha256"] == alone["weights_sha256"]
    assert jobs_of(there / "s")[1]["attempts"][-1]["resumed_from"] is not None


def test_a_hundred_jobs_in_one_process_use_no_more_memory_than_five(there: Path) -> None:
    for number in range(0, 100, 3):
        (there / f"raise-{number}").touch()
    seeds = "seed=" + ",".join(map(str, range(100)))
    words = small_run(*FAULTY, "loop.max_steps=12", "loop.eval_frequency=12", "checkpoint.every_n_steps=12")
    code, done = run(there, "-m", *words, seeds, "hydra.sweep.dir=s")
    assert code == 1 and states(there / "s") == "fdd" * 33 + "f", done.err
    pages = [int(line) for line in (there / "memory.txt").read_text().splitlines()]
    assert pages[99] <= 1.05 * pages[4]


@pytest.mark.parametrize("spawn", ["0", "1"])
def test_modules_of_the_current_directory_are_not_imported(there: Path, spawn: str) -> None:
    (there / "loopwright").mkdir()
    for name in ("torch.py", "struct.py", "hydra.py", "loopwright/__init__.py"):
        (there / name).write_text("open('imported', 'w').close()\nraise RuntimeError('imported')\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("loopwright"), "-m", *BASE, "seed=0,1", "hydra.sweep.dir=s", PARALLEL],
        cwd=there,
        env={**environment(), "LOOPWRIGHT_SPAWN": spawn},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(there / "s") == "dd" and not (there / "imported").exists()
