"""Several processes that one command starts, and torchrun: results, errors, signals, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from command import environment, run_dirs, small_run

pytestmark = pytest.mark.slow

LIMIT_SECONDS = 120
FAULT = """
import os, signal, time
import loopwright

class Fault(loopwright.Callback):
    def __init__(self, rank=1, step=30, how="none"):
        self.rank, self.step, self.how = rank, step, how

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            open(f"reached-{os.environ.get('RANK')}", "w").close()
        if trainer.global_step != self.step or int(os.environ.get("RANK", 0)) != self.rank:
            return
        if self.how == "raise":
            raise ValueError("row 17 is bad")
        if self.how == "stuck":
            time.sleep(1000)
        if self.how == "exit":
            os._exit(3)
        if self.how.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self.how))

class SlowEnd(loopwright.Callback):
    def finalize(self):
        if os.environ.get("RANK") == "0":
            time.sleep(3)
            open("ended-slowly", "w").close()
"""
COMMAND = [sys.executable, "-m", "loopwright"]
FAULTY = (
    "--trust=mine",
    "+callbacks.fault._target_=mine.Fault",
    "checkpoint.every_n_steps=10",
    "loop.eval_frequency=null",
)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FAULT)
    return tmp_path


def run(there: Path, *words: str, command: list[str] = COMMAND) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *words], cwd=there, env=environment(), capture_output=True, text=True, timeout=LIMIT_SECONDS
    )


def summary(there: Path) -> dict[str, object]:
    (directory,) = run_dirs(there)
    assert not (directory / "ranks").exists()
    found: dict[str, object] = json.loads((directory / "summary.json").read_text())
    return found


def processes_in(directory: Path) -> list[int]:
    """Return the IDs of the processes whose working directory is ``directory``."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "cwd") == str(directory) and int(path.name) != os.getpid():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def metrics_of(directory: Path) -> dict[tuple[int, str], float]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return {(line["step"], line["name"]): line["value"] for line in lines}


def test_two_processes_leave_one_directory_with_the_results_of_one_process(tmp_path: Path) -> None:
    for num_processes in (1, 2):
        words = small_run(
            f"device.num_processes={num_processes}", f"hydra.run.dir=of_{num_processes}", "model.dropout=0"
        )
        done = run(tmp_path, *words)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "" and done.stdout.count("Done: trained 4 steps to global_step 4") == 1
    alone, both = (metrics_of(tmp_path / f"of_{each}") for each in (1, 2))
    assert both == pytest.approx(alone, rel=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == {"of_1", "of_2"}
    names = [{path.name for path in (tmp_path / f"of_{each}").iterdir()} for each in (1, 2)]
    assert names[0] == names[1]
    resumed = run(tmp_path, "resume", "of_2", "loop.max_steps=6")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((tmp_path / "of_2" / "summary.json").read_text())["global_step"] == 6
    validated = run(tmp_path, "validate", "of_2")
    assert validated.returncode == 0, validated.stderr


@pytest.mark.parametrize(
    ("how", "rank", "line"),
    [
        ("raise", 0, "ValueError: row 17 is bad"),
        ("raise", 1, "rank 1: ValueError: row 17 is bad"),
        ("exit", 1, "rank 1: the process was killed, or ended without a message"),
        ("SIGKILL", 1, "rank 1: the process was killed, or ended without a message"),
        ("SIGKILL", 0, "rank 0: the process was killed by SIGKILL"),
    ],
)
def test_a_fault_of_one_process_ends_all_with_its_cause_once(how: str, rank: int, line: str, there: Path) -> None:
    words = small_run(*FAULTY, f"+callbacks.fault.how={how}", f"+callbacks.fault.rank={rank}", "loop.max_steps=2000")
    took = {}

    def note_time() -> None:
        while not (there / f"reached-{rank}").exists():
            time.sleep(0.01)
        took["begun"] = time.monotonic()

    threading.Thread(target=note_time, daemon=True).start()
    done = run(there, *words, "device.num_processes=2")
    assert time.monotonic() - took["begun"] < 15
    assert done.returncode == 1
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1, done.stderr
    assert processes_in(there) == []
    found = summary(there)
    if rank or how == "raise":
        assert found["state"] == "failed" and str(found["error"]).startswith(line)


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("who", ["parent", "rank 0", "rank 1"])
def test_a_signal_saves_one_step_on_all(number: str, code: int, who: str, there: Path) -> None:
    words = small_run(*FAULTY, "loop.max_steps=1000000", "device.num_processes=2")
    if who != "parent":
        words += [f"+callbacks.fault.how={number}", f"+callbacks.fault.rank={who[-1]}"]
    started = subprocess.Popen(
        [*COMMAND, *words],
        cwd=there,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (there / "reached-0").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if who == "parent":
        started.send_signal(getattr(signal, number))
    _, err = started.communicate(timeout=LIMIT_SECONDS)
    assert started.returncode == code, err
    found = summary(there)
    assert found["state"] == "interrupted"
    (directory,) = run_dirs(there)
    assert (directory / "checkpoints" / f"step_{found['global_step']:08d}").is_dir()
    assert "Traceback" not in err and err.count("interrupted by") == 1
    assert processes_in(there) == []


def test_process_0_is_not_killed_if_it_ends_after_the_others(there: Path) -> None:
    fault = ("+callbacks.fault.how=SIGTERM", "+callbacks.slow._target_=mine.SlowEnd")
    done = run(there, *small_run(*FAULTY, *fault, "loop.max_steps=1000000", "device.num_processes=2"))
    assert done.returncode == 143, done.stderr
    assert (there / "ended-slowly").exists()
    assert summary(there)["state"] == "interrupted"


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]


def test_torchrun_makes_one_directory(tmp_path: Path) -> None:
    command = [*TORCHRUN, "--rdzv-endpoint=localhost:0", "--local-addr=127.0.0.1", "-m", "loopwright"]
    done = run(tmp_path, *small_run(), command=command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Done: trained 4 steps") == 1
    assert len(run_dirs(tmp_path)) == 1
    swept = run(tmp_path, "-m", *small_run("loop.grad_accum_steps=1,2"), command=command)
    assert swept.returncode != 0
    assert (
        "-m: a sweep starts its own processes; use device.num_processes=2 in each job, without torchrun."
        in swept.stderr
    )


def test_two_agents_stand_in_for_two_machines(tmp_path: Path) -> None:
    port = 29_000 + os.getpid() % 3000
    command = [*TORCHRUN, "--nnodes=2", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=two", "--local-addr=127.0.0.1"]
    command[3] = "--nproc-per-node=1"
    words = [*command, "-m", "loopwright", *small_run("hydra.run.dir=two")]
    started = [
        subprocess.Popen(
            words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [each.communicate(timeout=LIMIT_SECONDS) for each in started]
    assert [each.returncode for each in started] == [0, 0], outputs
    assert sum(out.count("Done: trained 4 steps") for out, _ in outputs) == 1
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["state"] == "completed"


def test_jobs_of_a_sweep_may_have_two_processes(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", *small_run("loop.grad_accum_steps=1,2", "device.num_processes=2"))
    assert done.returncode == 0, done.stderr
    states = [json.loads(path.read_text())["state"] for path in tmp_path.glob("outputs/*/*/*/summary.json")]
    assert states == ["completed", "completed"]
    assert "2 of 2 jobs done" in done.stdout and "Done: trained" not in done.stdout


def test_a_run_of_two_processes_is_reproduced(tmp_path: Path) -> None:
    first = run(tmp_path, *small_run("device.num_processes=2", "hydra.run.dir=first"))
    assert first.returncode == 0, first.stderr
    again = run(tmp_path, "reproduce", "first", "hydra.run.dir=again")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "unchanged" in again.stdout and "bitwise" in again.stdout


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["device.num_processes=0"], "device.num_processes=0: expected a whole number, 1 or more"),
        (
            ["device.num_processes=2", "device.kind=mps"],
            "device.num_processes=2: expected 1 with kind=mps; use kind=cpu.",
        ),
        (
            ["device.num_processes=8", "data.batch_size=4"],
            "data.batch_size=4: expected 8 or more, a row for each of 8 processes.",
        ),
    ],
)
def test_a_wrong_setting_stops_before_processes_are_started(words: list[str], line: str, tmp_path: Path) -> None:
    done = run(tmp_path, *small_run(*words))
    assert done.returncode == 2
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "outputs").exists()


def test_launches_in_one_process_leave_nothing_behind(tmp_path: Path) -> None:
    script = """
import os, signal, sys, threading
from loopwright.cli import main
names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")
def state():
    children = open(f"/proc/self/task/{os.getpid()}/children").read()
    handlers = [signal.getsignal(getattr(signal, name)) for name in names]
    return len(os.listdir("/proc/self/fd")), threading.active_count(), handlers, dict(os.environ), children
assert main(sys.argv[1:]) == 0
before = state()
for _ in range(2):
    assert main(sys.argv[1:]) == 0
after = state()
print("descriptors", after[0] - before[0], "threads", after[1] - before[1])
assert after[1:] == before[1:] or (after[2:] == before[2:] and after[1] <= before[1]), (before, after)
assert after[0] <= before[0], (before, after)
"""
    done = run(tmp_path, *small_run("device.num_processes=2"), command=[sys.executable, "-c", script])
    assert done.returncode == 0, done.stdout + done.stderr
