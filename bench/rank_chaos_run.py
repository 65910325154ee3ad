"""`Launch`, a run of several processes that `rank_chaos.py` disturbs, and `Trouble`, the callback that disturbs it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from loopwright import Callback
from loopwright.checkpoint import verify_checkpoint
from loopwright.errors import CheckpointError
from loopwright.experiment.runs.causes import processes

NUM_STEPS = 40
LIMIT_SECONDS = 120.0
LINE = "row 17 is bad"
WORDS = (
    "--trust=rank_chaos_run",
    "+callbacks.trouble._target_=rank_chaos_run.Trouble",
    "data=synthetic",
    "data.num_train=110",
    "data.num_val=70",
    "data.batch_size=8",
    "model.hidden=[16]",
    f"loop.max_steps={NUM_STEPS}",
    "loop.grad_accum_steps=2",
    "loop.eval_frequency=10",
    "checkpoint.every_n_steps=4",
    "loggers=json_lines",
    "device=cpu",
    "hydra.run.dir=run",
)


class Trouble(Callback):
    """Disturbs one process of a run, or reports to `rank_chaos.py` that a moment has come.

    In the working directory, each process writes its completed steps to ``step-RANK``, and ``reached-RANK`` at the
    chosen moment.

    Args:
        how: "none"; or a fault: "raise", "exit", "stuck", or the name of a signal, such as "SIGKILL".
        rank: process that has the fault.
        phase: moment of the fault: "step", "validation" or "save".
        step: first step at which the moment may come.

    The variable ``PAUSE_SECONDS`` sets the time to wait in each step, and ten times as long at the chosen moment.
    """

    def __init__(self, how: str = "none", rank: int = -1, phase: str = "step", step: int = 8) -> None:
        self._how, self._rank, self._phase, self._step = how, rank, phase, step
        self._pause_seconds = float(os.environ.get("PAUSE_SECONDS", "0"))
        self._own_rank = int(os.environ.get("RANK", "0"))
        self._is_done = False

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Report the step."""
        Path(f"step-{self._own_rank}").write_text(str(trainer.global_step))
        time.sleep(self._pause_seconds)
        self._reach(trainer, "step")

    def on_validate_batch_start(self, trainer: Any, model: Any, batch: Any, batch_idx: int) -> None:
        """Act in a validation."""
        self._reach(trainer, "validation")

    def on_save_checkpoint(self, trainer: Any, state_dict: dict[str, Any]) -> None:
        """Act in a save."""
        self._reach(trainer, "save")

    def _reach(self, trainer: Any, phase: str) -> None:
        if self._is_done or phase != self._phase or trainer.global_step < self._step:
            return
        self._is_done = True
        Path(f"reached-{self._own_rank}").touch()
        time.sleep(10 * self._pause_seconds)
        if self._own_rank == self._rank:
            _suffer(self._how)
        elif self._how == "stuck" and self._own_rank == int(not self._rank):
            raise ValueError(LINE)


def _suffer(how: str) -> None:
    if how == "raise":
        raise ValueError(LINE)
    if how == "exit":
        os._exit(3)
    if how == "stuck":  # a call in C that keeps Python's lock and does not return for a signal
        lock = ctypes.create_string_buffer(64)
        libc = ctypes.PyDLL(None)
        libc.pthread_mutex_lock(lock)
        libc.pthread_mutex_lock(lock)
    if how.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, how))


class Launch:
    """One command ``loopwright`` with several processes, in a working directory of its own.

    Args:
        directory: working directory, which exists.
        words: words of the command line.
        pause_seconds: time to wait in each step.
    """

    def __init__(self, directory: Path, *words: str, pause_seconds: float = 0.02) -> None:
        self.directory, self.run_dir = directory, directory / "run"
        for path in directory.glob("reached-*"):
            path.unlink()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loopwright", *words],
            cwd=directory,
            env={**environment(), "PAUSE_SECONDS": str(pause_seconds)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.seconds = 0.0  # from the moment that was waited for to the end

    @property
    def parent(self) -> int:
        """Process ID of the command, which is also the ID of its process group."""
        return self._process.pid

    def ranks(self) -> list[int]:
        """Return the IDs of the processes that train."""
        return [process_id for _, process_id in sorted(processes(self.run_dir))]

    def wait_for(self, name: str) -> bool:
        """Wait until a file appears in the working directory. Return False if the command ends before."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not (self.directory / name).exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def end(self) -> tuple[int, str, str]:
        """Wait for the end of the command and of all its processes. Return the exit code, stdout and stderr."""
        begun = time.monotonic()
        try:
            out, err = self._process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            for process_id in (self.parent, *processes_in(self.directory)):
                os.kill(process_id, signal.SIGKILL)
            out, err = self._process.communicate()
        while processes_in(self.directory) and time.monotonic() - begun < LIMIT_SECONDS:
            time.sleep(0.02)
        self.seconds = time.monotonic() - begun
        return self._process.returncode, out, err

    def steps(self) -> list[int]:
        """Return the last completed step of each process."""
        return [int(path.read_text()) for path in sorted(self.directory.glob("step-*"))]

    def summary(self) -> dict[str, Any]:
        """Return the content of ``summary.json``; empty if there is no such file."""
        path = self.run_dir / "summary.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def newest(self) -> int | None:
        """Return the step of the newest checkpoint; None if there is none, or if a checkpoint is not readable."""
        folders = sorted((self.run_dir / "checkpoints").glob("step_*"))
        try:
            return max((verify_checkpoint(folder).step for folder in folders), default=None)
        except CheckpointError:
            return None

    def result(self) -> tuple[str, bytes]:
        """Return the digest of the final weights, and the logged metrics."""
        return str(self.summary().get("weights_sha256")), (self.run_dir / "metrics.jsonl").read_bytes()


def environment() -> dict[str, str]:
    """Return the environment of a command that finds `Trouble`, and all modules of this process."""
    paths = [str(Path(__file__).parent), *(entry for entry in sys.path if entry)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def processes_in(directory: Path) -> list[int]:
    """Return the IDs of the processes that run in ``directory``."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "cwd") == str(directory):
                found.append(int(path.name))
        except OSError:
            continue
    return found
