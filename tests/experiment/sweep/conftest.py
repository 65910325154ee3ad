"""Fixtures of a small sweep, and functions that read and change sweeps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import told
from command import Answer, run_in, small_run

WORDS = (
    "--config-dir=conf",
    "--trust=told",
    *small_run("callbacks=[default,told]", "loop.max_steps=6", "log_every_n_steps=1", "device.num_threads=1"),
)
GRID = ("optimizer.lr=0.1,0.01", "seed=0,1")
# Locks a directory and writes who holds the lock, until standard input is closed.
LOCK = """
import fcntl, json, os, sys
descriptor = os.open(os.path.join(sys.argv[1], ".lock"), os.O_RDWR | os.O_CREAT)
fcntl.lockf(descriptor, fcntl.LOCK_EX)
os.ftruncate(descriptor, 0)
os.write(descriptor, json.dumps({"process_id": 4711, "host": "there", "since": "noon"}).encode())
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def straight_sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """The directory of a sweep of four jobs, ``s``, and its answer. All tests share it, and none changes it."""
    root = tmp_path_factory.mktemp("sweep")
    told.write_option(root)
    answer = run_in(root, "-m", *WORDS, *GRID, "hydra.sweep.dir=s")
    assert answer.code == 0, answer.err
    return root / "s", answer


@pytest.fixture
def straight(straight_sweep: tuple[Path, Answer]) -> Path:
    """The directory of the shared sweep, for tests that only read it."""
    return straight_sweep[0]


@pytest.fixture
def swept(straight: Path, tmp_path: Path) -> Path:
    """A copy of the shared sweep, ``s`` in the directory of the command; a test may change it."""
    shutil.copytree(straight.parent / "conf", tmp_path / "conf", dirs_exist_ok=True)
    return Path(shutil.copytree(straight, tmp_path / "s"))


@pytest.fixture
def sweep(cli: Callable[..., Answer], tmp_path: Path) -> Callable[..., Answer]:
    """Return a function that runs a sweep over ``GRID`` in ``s``; its words replace or follow default words."""
    told.write_option(tmp_path)

    def call(*words: str) -> Answer:
        keys = {word.partition("=")[0] for word in words}
        default = [*WORDS, *GRID, "hydra.sweep.dir=s"]
        return cli("-m", *(word for word in default if word.partition("=")[0] not in keys), *words)

    return call


@pytest.fixture
def locked() -> Callable[[Path], object]:
    """Return a context manager in which another process holds the lock of a directory."""

    @contextmanager
    def lock(directory: Path) -> Iterator[None]:
        command = [sys.executable, "-I", "-S", "-c", LOCK, os.fspath(directory)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.communicate()

    return lock
