"""The launcher ``slurm``, with the local executor of submitit and with `FakeSlurm`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command import Answer
from fake_slurm import FakeSlurm
from loopwright.errors import SettingError
from loopwright.experiment.gate.trust import NO_TRUST
from loopwright.experiment.launch.submitted_job import SubmittedJob, read_exit_record
from loopwright.experiment.sweep import slurm, slurm_executor
from loopwright.experiment.sweep.index_file import read_index
from loopwright.experiment.sweep.settings import SlurmSettings, SweepSettings
from loopwright.experiment.sweep.slurm import Slurm
from loopwright.experiment.sweep.slurm_executor import check_slurm, outcome_of_state

pytest.importorskip("submitit", reason="needs the extra: pip install 'loopwright[slurm]'")
pytestmark = pytest.mark.extras

Cli = Callable[..., Answer]
LOCAL = ("sweep.launcher=slurm", "sweep.slurm.executor=local")
# At step 10, the first attempt of job 0 sends SIGUSR2 to its parent process, as Slurm does before the time limit, or
# SIGINT to the process of the sweep. Then it waits for the SIGTERM that follows.
SIGNALS = """
import os, signal, time
from pathlib import Path

import loopwright

class Signals(loopwright.Callback):
    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        if trainer.global_step == 10 and os.path.exists("signals") and Path(trainer.run_dir).name == "0":
            os.rename("signals", "sent")
            target = os.environ.get("SWEEP_PROCESS")
            received, before = [], signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, lambda *given: (received.append(1), before(*given)))
            os.kill(os.getppid() if target is None else int(target), signal.SIGINT if target else signal.SIGUSR2)
            while not received:
                time.sleep(0.01)
"""
# A child process that sends SIGUSR2 to its parent, saves after SIGTERM, and exits with the given code.
CHILD = """
import os, signal, sys
from loopwright.experiment.launch.supervised import join_supervisor

def save(*_):
    print("saved", flush=True)
    sys.exit(int(sys.argv[1]))

signal.signal(signal.SIGTERM, save)
join_supervisor()
os.kill(os.getpid(), signal.SIGUSR2)  # blocked in this process
os.kill(os.getppid(), signal.SIGUSR2)
while True:
    signal.pause()
"""


@pytest.fixture
def begin(cli: Cli, tmp_path: Path) -> Cli:
    """Return a function that starts a sweep over two seeds in ``s``."""
    (tmp_path / "mine.py").write_text(SIGNALS)
    words = ("--trust=mine", "+callbacks.signals._target_=mine.Signals", "device=cpu", "device.num_threads=1")

    def call(*more: str) -> Answer:
        return cli("-m", *words, "loop.max_steps=20", "seed=0,1", "hydra.sweep.dir=s", *more)

    return call


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A Slurm on PATH that sends Ctrl-C to the sweep after each submission."""
    fake = FakeSlurm(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    fake.interrupt_after_submission()
    return fake


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOK_SECONDS", "_QUEUE_SECONDS", "_STOP_SECONDS"):
        monkeypatch.setattr(slurm, name, 0.0)


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR2)
    yield
    signal.signal(signal.SIGUSR2, before)


def digests(directory: str = "s") -> list[str | None]:
    return [job.weights_sha256 for job in read_index(Path(directory)).jobs]


def states() -> list[str]:
    return [job.state for job in read_index(Path("s")).jobs]


def places(job: int = 0) -> list[str]:
    return [attempt.where for attempt in read_index(Path("s")).jobs[job].attempts]


def test_jobs_in_processes_of_submitit_equal_jobs_in_this_process_also_after_the_time_limit(
    begin: Cli, tmp_path: Path
) -> None:
    assert begin().code == 0
    inline = digests()
    shutil.move("s", "inline")
    (tmp_path / "signals").touch()
    answer = begin(*LOCAL, "sweep.num_parallel=2")
    assert answer.code == 0, answer.err
    assert digests() == inline
    assert None not in inline
    assert (tmp_path / "sent").exists()
    assert len(places()) == 1 and places()[0].startswith("pid ")
    log = next(Path("s/slurm").glob(f"{places()[0].removeprefix('pid ')}_0_log.out")).read_text()
    assert "Requeued job" in log
    assert len(list(Path("s/slurm").glob("exit_*.json"))) == 2


def test_jobs_of_the_local_executor_save_and_end_after_ctrl_c(
    begin: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "signals").touch()
    monkeypatch.setenv("SWEEP_PROCESS", str(os.getpid()))
    answer = begin(*LOCAL)
    assert answer.code == 130
    assert states() == ["interrupted", "pending"]
    job = read_index(Path("s")).jobs[0]
    assert (job.attempts[0].end, job.attempts[0].exit_code) == ("interrupted", 143)
    assert "loopwright sweep resume --trust=mine s" in answer.out


def test_an_array_continues_after_ctrl_c_and_a_later_runner_takes_it_up(begin: Cli, cli: Cli, fake: FakeSlurm) -> None:
    answer = begin("sweep.launcher=slurm", "sweep.slurm.partition=gpu", "sweep.slurm.gpus=1")
    assert answer.code == 130, answer.err
    assert "2 at a time" in answer.out
    assert "The jobs continue in Slurm. To see them: loopwright sweep show s." in answer.out.replace("\n", " ")
    assert (states(), places(0), places(1)) == (["running"] * 2, ["slurm 1234_0"], ["slurm 1234_1"])
    script = (fake.folder / "1234.sh").read_text()
    for flag in ("array=0-1%2", "partition=gpu", "gpus-per-node=1", "mem=16384MB", "time=60", "signal=USR2@60"):
        assert f"#SBATCH --{flag}\n" in script
    fake.run("1234_0")
    assert "1 of 2 jobs done, 1 running" in cli("sweep", "show", "s").out
    other = cli("sweep", "resume", "--trust=mine", "s", "sweep.launcher=process")
    assert other.code == 2
    assert "1 jobs of this sweep are still in Slurm" in other.err
    process = fake.begin("1234_1")
    answer = cli("sweep", "resume", "--trust=mine", "s")
    assert process.wait(timeout=120) == 0
    assert answer.code == 0, answer.err
    assert (states(), places(1), len(fake.calls_of("sbatch"))) == (["done"] * 2, ["slurm 1234_1"], 1)


def test_a_stopped_array_leaves_the_queue_and_is_submitted_again(begin: Cli, cli: Cli, fake: FakeSlurm) -> None:
    assert begin("sweep.launcher=slurm").code == 130
    fake.set_state("1234_0", "RUNNING")
    answer = cli("sweep", "stop", "s")
    assert (answer.code, answer.out) == (0, "2 jobs in Slurm save and end, or leave the queue.\n")
    ids = ["1234_0", "1234_1"]
    assert fake.calls_of("scancel") == [["--state=PENDING", *ids], ["--signal=TERM", *ids]]
    fake.set_state("1234_0", "NODE_FAIL")
    assert cli("sweep", "resume", "--trust=mine", "s").code == 130
    assert (states(), places(0), places(1)) == (
        ["failed", "running"],
        ["slurm 1234_0"],
        ["slurm 1234_1", "slurm 1235"],
    )
    assert read_index(Path("s")).jobs[0].error == "lost: its state in Slurm is NODE_FAIL"


def test_a_refused_submission_is_an_error_and_leaves_the_jobs_pending(begin: Cli, fake: FakeSlurm) -> None:
    fake.refuse()
    answer = begin("sweep.launcher=slurm")
    assert answer.code == 2
    assert "sweep.launcher=slurm: the jobs were not submitted: " in answer.err
    assert "invalid partition specified" in answer.err
    assert (states(), places()) == (["pending"] * 2, [])


@pytest.mark.usefixtures("no_waiting")
def test_a_runner_cancels_the_jobs_that_it_is_asked_to_stop(tmp_path: Path, fake: FakeSlurm) -> None:
    fake.set_state("7_0", "PENDING")
    fake.set_state("7_1", "RUNNING")
    settings = SweepSettings(launcher="slurm")
    launcher = Slurm(tmp_path, NO_TRUST, settings, 10, {0: "7_0", 1: "7_1"})
    assert (launcher.num_free, launcher.outlives_runner) == (8, True)
    assert launcher.poll(0) == []
    for number in (0, 1, 2):
        launcher.stop(number)
    launcher.poll(0)
    ended = launcher.poll(0)
    assert [(each.number, each.outcome.exit_code, each.failure) for each in ended] == [(0, 143, None)]
    (tmp_path / "slurm").mkdir(exist_ok=True)
    for _ in range(2):
        launcher.kill(1)
        assert launcher.poll(0) == []
    for job_id in ("6_1", "7_1"):  # the file of an earlier attempt is ignored
        text = json.dumps({"job_id": job_id, "exit_code": 143, "failure": None})
        (tmp_path / "slurm" / "exit_1.json").write_text(text)
        ended = launcher.poll(0)
    assert [(each.number, each.outcome.exit_code) for each in ended] == [(1, 143)]
    expected = [["--state=PENDING", "7_0", "7_1"], ["--signal=TERM", "7_0", "7_1"], ["7_1"]]
    assert fake.calls_of("scancel") == expected


@pytest.mark.parametrize(
    "state, expected",
    [
        ("CANCELLED by 1000", (143, None)),
        ("TIMEOUT", (1, "out of time: Slurm ended the job before it had saved")),
        ("OUT_OF_MEMORY", (1, "out of memory: Slurm ended the job")),
        ("", (1, "lost: its state in Slurm is unknown")),
    ],
)
def test_the_state_of_a_job_without_exit_code_tells_how_it_ended(state: str, expected: tuple[int, str | None]) -> None:
    assert outcome_of_state(state) == expected


def submitted(folder: Path, code: int) -> SubmittedJob:
    return SubmittedJob(
        words=[sys.executable, "-P", "-c", CHILD, str(code)],
        cwd=str(folder),
        output=str(folder / "output.log"),
        exit_file=str(folder / "exit.json"),
    )


def checkpoint_on_signal(job: SubmittedJob, error: BaseException) -> list[Any]:
    """Call `checkpoint` in the handler of SIGUSR2, and raise ``error`` there, as submitit does."""
    returned: list[Any] = []

    def receive(*_: object) -> None:
        returned.append(job.checkpoint())
        raise error

    signal.signal(signal.SIGUSR2, receive)
    return returned


def test_a_job_that_saved_at_its_time_limit_is_queued_again(tmp_path: Path) -> None:
    job = submitted(tmp_path, 143)
    returned = checkpoint_on_signal(job, SystemExit(-1))
    with pytest.raises(SystemExit):
        job()
    assert (tmp_path / "output.log").read_text() == "saved\n"
    assert returned[0].function == replace(job)
    assert not (tmp_path / "exit.json").exists()


@pytest.mark.parametrize("code", [0, 1, 143])
def test_a_job_that_is_not_queued_again_records_its_exit_code(tmp_path: Path, code: int) -> None:
    job = submitted(tmp_path, code)
    returned = checkpoint_on_signal(job, RuntimeError("not queued again"))
    with pytest.raises(RuntimeError, match="not queued again"):
        job()
    assert (returned[0] is None) == (code != 143)
    record = read_exit_record(tmp_path / "exit.json")
    assert record is not None
    assert (record.job_id, record.exit_code) == (None, code)
    assert (record.failure or "").startswith("out of time" if code == 143 else "")


def test_a_job_saves_after_sigterm_and_after_a_request(tmp_path: Path) -> None:
    job = submitted(tmp_path, 143)
    signal.signal(signal.SIGUSR2, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    job()
    by_request = replace(job, request_file=str(tmp_path / "request"))
    signal.signal(signal.SIGUSR2, lambda *_: (tmp_path / "request").write_text("stop"))
    by_request()
    assert (tmp_path / "output.log").read_text() == "saved\nsaved\n"
    record = read_exit_record(tmp_path / "exit.json")
    assert record is not None
    assert (record.exit_code, record.failure) == (143, None)


def test_a_missing_submitit_is_an_error_before_anything_is_made(
    begin: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_executor, "find_spec", lambda name: None)
    answer = begin("sweep.launcher=slurm")
    assert answer.code == 2
    problem = "sweep.launcher=slurm: needs submitit, which is not installed; pip install 'loopwright[slurm]'."
    assert problem in answer.err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name, value", [("timeout_minutes", 5), ("memory_gib", 2), ("devices", [0])])
def test_settings_of_other_launchers_are_refused(fake: FakeSlurm, name: str, value: Any) -> None:
    with pytest.raises(SettingError, match=f"sweep.{name}=.*use sweep.slurm"):
        check_slurm(SweepSettings(launcher="slurm", **{name: value}))


def test_a_machine_without_slurm_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingError, match="found no command srun"):
        check_slurm(SweepSettings(launcher="slurm"))
    check_slurm(SweepSettings(launcher="slurm", slurm=SlurmSettings(executor="local")))
