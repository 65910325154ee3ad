"""Functions that create run directories. Two runs never get the same directory."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from loopwright.errors import SettingError

OUTPUTS = Path("outputs")
_TYPED = "hydra.run.dir=DIR, or for a sweep hydra.sweep.dir=DIR"
_RUN_FILES = ("config.yaml", "summary.json", "data.json", "checkpoints", "multirun.yaml", ".hydra")


def allocate(name: str, *, is_sweep: bool, environ: Mapping[str, str] = os.environ) -> Path:
    """Create ``outputs/<name>/<date>_<time>_<id>`` and return its relative path. For a sweep, append ``_sweep``.

    Under torchrun, the process with rank 0 creates the directory and writes the name of the directory to a file
    ``outputs/<name>/.launch-<hash>``. All other processes wait for this file and read the name.

    Args:
        name: name of the run, already checked by `JobSettings`.
        is_sweep: whether the directory will contain the directories of the jobs of a sweep.
        environ: environment variables, including the rank that torchrun sets.

    Raises:
        SettingError: if ``outputs/<name>`` cannot be created, or if torchrun started processes on several machines.
            Several machines may have no shared disk for the file.
        OSError: if the directory cannot be created in ``outputs/<name>``.
        TimeoutError: if the process with rank 0 creates no directory within 60 s.
    """
    parent = OUTPUTS / name
    _make("run directory", parent)
    if int(environ.get("WORLD_SIZE", "1")) == 1:
        return _make_new(parent, is_sweep)
    if int(environ.get("GROUP_WORLD_SIZE", "1")) > 1:
        raise SettingError("hydra.run.dir", ": must be given for a run on several machines; use hydra.run.dir=DIR.")
    return _make_shared(parent, is_sweep, environ)


def use(setting: str, directory: str) -> Path:
    """Create the run directory that the user typed, if it does not exist, and return its path.

    Args:
        setting: name of the setting in which the user typed the path. Error messages contain this name.
        directory: path as typed.

    Raises:
        SettingError: if the directory already contains a run or cannot be created, or if the path is a file.
    """
    path = Path(directory)
    check_usable(setting, path)
    _make(setting, path)
    return path


def _make(setting: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        problem = f"={str(path)!r}: cannot be created ({reason}: {error.filename}); name a directory with {_TYPED}."
        raise SettingError(setting, problem) from error


def check_usable(setting: str, path: Path) -> None:
    """Raise a `SettingError` if ``path`` is a file, or a directory that already contains a run."""
    if path.exists() and not path.is_dir():
        raise SettingError(setting, f"={str(path)!r}: expected a directory, found a file.")
    held = [name for name in _RUN_FILES if (path / name).exists()]
    if held or (path.is_dir() and any(os.path.exists(child / "summary.json") for child in path.iterdir())):
        raise SettingError(setting, f"={str(path)!r}: contains a run already; name a new directory.")


def _make_new(parent: Path, is_sweep: bool) -> Path:
    while True:
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        path = parent / f"{stamp}_{secrets.token_hex(3)}{'_sweep' if is_sweep else ''}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path


def _make_shared(parent: Path, is_sweep: bool, environ: Mapping[str, str], timeout_seconds: float = 60.0) -> Path:
    """Return one new directory in all processes that one torchrun started on this machine.

    The hash in the name of the file ``.launch-<hash>`` is computed from torchrun's run ID, port, restart count and
    process ID. The process ID distinguishes two launches that use the default run ID and port.
    """
    identity = [environ.get(key, "") for key in ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")]
    key = hashlib.sha256(json.dumps([*identity, os.getppid()]).encode()).hexdigest()[:16]
    note = parent / f".launch-{key}"
    if int(environ["RANK"]) == 0:
        path = _make_new(parent, is_sweep)
        partial = note.with_name(f"{note.name}.{os.getpid()}")
        partial.write_text(path.name, encoding="utf-8")
        partial.replace(note)
        return path
    deadline = time.monotonic() + timeout_seconds
    while not note.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{note}: the process with rank 0 has created no run directory within {timeout_seconds:.0f} s."
            )
        time.sleep(0.02)
    return parent / note.read_text(encoding="utf-8")
