"""Helpers to run the command in tests, to find its run directories, and overrides for a run of four steps."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loopwright.cli import main

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
    "device=cpu",
)


@dataclass(frozen=True)
class Answer:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


def small_run(*words: str) -> list[str]:
    """The words of a run of four steps; ``words`` replace those with the same key."""
    keys = {word.lstrip("+~").split("=")[0] for word in words}
    return [*words, *[word for word in SMALL if word.split("=")[0] not in keys]]


def run_in(directory: Path, *words: str) -> Answer:
    """Call the command in this process and in ``directory``, for a fixture that several tests share."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(directory), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return Answer(code, out.getvalue(), err.getvalue())


def run_each_in(directory: Path, commands: Sequence[Sequence[str]]) -> list[Answer]:
    """Call several commands with `run_in`, for a test that limits their common time and memory."""
    return [run_in(directory, *words) for words in commands]


def run_dirs(root: Path) -> list[Path]:
    """Return the run directories under ``outputs``, oldest first."""
    found = [path.parent for path in root.glob("outputs/*/*/summary.json")]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def environment(*first: Path) -> dict[str, str]:
    """Return an environment in which a process imports from ``first``, and then from the paths of this process."""
    paths = [*map(str, first), *(entry for entry in sys.path if entry)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run_process(cwd: Path, *words: str) -> tuple[int, Answer]:
    """Run the command in a new process and process group, and return the process id and the answer.

    Waits until the command and all processes that it started have closed its output.
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
    """Return whether all processes of the group of ``process_id`` end within the given time.

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
