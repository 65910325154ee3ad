"""The command as tests call it: what it gave back, what it left, and a run of four steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SMALL = (
    "data=synthetic",
    "data.num_train=24",
    "data.num_val=8",
    "data.batch_size=4",
    "model.hidden=[4]",
    "loop.max_steps=4",
    "loop.eval_frequency=2",
    "checkpoint.every_n_steps=2",
    "loggers=json_lines",
)


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str


def run_dirs(root: Path) -> list[Path]:
    """The run directories under ``outputs``, oldest first."""
    found = [path.parent for path in root.glob("outputs/*/*/summary.json")]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def environment(*first: Path) -> dict[str, str]:
    """The environment of a process that finds what this one finds, and before it what is in ``first``."""
    paths = [*map(str, first), *(entry for entry in sys.path if entry)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run_process(cwd: Path, *words: str) -> tuple[int, Answer]:
    """Call the command in a process, and a group of processes, of its own; returns its id and what it gave back.

    It is waited for until nobody holds its streams any more: it and all that it started.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "loopwright", *words],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.pid, Answer(process.returncode, out, err)


def is_group_gone(process_id: int, within_seconds: float = 60.0) -> bool:
    """Whether all processes of the process group ``process_id`` have ended, or end within the given time.

    Zombies count as ended: an orphan stays a zombie until its new parent waits for it.
    """
    deadline = time.monotonic() + within_seconds
    while True:
        is_late = time.monotonic() > deadline
        listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
        left = [state for group, state in map(str.split, listed.splitlines()) if int(group) == process_id]
        if all(state.startswith("Z") for state in left):
            return True
        if is_late:
            return False
        time.sleep(0.05)
