"""Helpers for tests of sweeps with real processes: a callback with faults, and a command that runs during a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from command import environment

LIMIT_SECONDS = 120
# A callback for all jobs. Files in the current directory select what it does in which job: `slow-3` makes each step of
# job 3 slow, and `raise-3`, `kill-3`, `once-3`, `stuck-3`, `poison-3` and `print-3` have an effect at step 12 of job 3.
FAULT = """
import os, signal, time
from pathlib import Path

import torch

import loopwright

class Fault(loopwright.Callback):
    def on_fit_start(self, trainer, train_dataloader, val_dataloader, loop):
        pages = Path("/proc/self/statm").read_text().split()[1]
        with open("memory.txt", "a") as file:
            file.write(f"{pages}\\n")

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        job = Path(trainer.run_dir).name
        if os.path.exists(f"slow-{job}") or os.path.exists("slow"):
            time.sleep(0.5)
        if trainer.global_step != 12:
            return
        if os.path.exists(f"print-{job}"):
            print("\\rprogress 50 %", end="", flush=True)
        if os.path.exists(f"stuck-{job}"):
            time.sleep(1000)
        if os.path.exists(f"raise-{job}"):
            raise RuntimeError("boom")
        is_once = os.path.exists(f"once-{job}")
        if is_once:
            os.unlink(f"once-{job}")
        if is_once or os.path.exists(f"kill-{job}"):
            os.kill(os.getpid(), signal.SIGKILL)
        if os.path.exists(f"poison-{job}"):
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))
"""


class Command:
    """A command in its own process group that runs while the test continues. It is killed at the end of the context."""

    def __init__(self, there: Path, *words: str) -> None:
        self._there = there
        self._words = words

    def __enter__(self) -> Command:
        self._log = open(self._there / "command.log", "w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loopwright", *self._words],
            cwd=self._there,
            env=environment(),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(LIMIT_SECONDS)
        self._log.close()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the terminal's foreground group, as Ctrl-C does."""
        os.killpg(self._process.pid, number)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> tuple[int, str]:
        code = self._process.wait(LIMIT_SECONDS)
        self._log.seek(0)
        return code, self._log.read()


def wait_for(condition: Callable[[], Any], command: Command | None = None) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        assert command is None or command.is_running, command.end()[1]
        time.sleep(0.05)


def is_left_alone(there: Path, within_seconds: float = 5.0) -> bool:
    """Return whether all processes whose working directory is ``there`` end within the given time."""
    deadline = time.monotonic() + within_seconds
    while processes_in(there):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def processes_in(directory: Path) -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cwd") if _leads_to(path, directory)]


def _leads_to(path: Path, directory: Path) -> bool:
    try:
        return os.readlink(path) == str(directory)
    except OSError:
        return False
