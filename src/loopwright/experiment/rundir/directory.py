"""Run directories: made exclusively, so that no two runs ever share one."""

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
_TYPED = "hydra.run.dir=DIR, of a sweep hydra.sweep.dir=DIR"
_RUN_FILES = ("config.yaml", "summary.json", "checkpoints", "multirun.yaml", ".hydra")


def allocate(name: str, *, is_sweep: bool, environ: Mapping[str, str] = os.environ) -> Path:
    """Make ``outputs/<name>/<date>_<time>_<id>`` (of a sweep: ``…_sweep``) and return it, relative.

    Under torchrun the first process makes it and the others learn its name from a small file beside it.

    Args:
        name: of the run; checked by `JobSettings`.
        is_sweep: whether it is to hold the directories of many jobs.
        environ: the environment, where torchrun says which process this is.

    Raises:
        SettingError: on several machines, which share no such file with certainty.
        OSError: if the directory cannot be made.
    """
    parent = OUTPUTS / name
    _make("run directory", parent)
    if int(environ.get("WORLD_SIZE", "1")) == 1:
        return _make_new(parent, is_sweep)
    if int(environ.get("GROUP_WORLD_SIZE", "1")) > 1:
        raise SettingError("hydra.run.dir", ": on several machines a run's directory must be given; hydra.run.dir=DIR.")
    return _make_shared(parent, is_sweep, environ)


def use(setting: str, directory: str) -> Path:
    """The directory that the user typed, exactly, made if need be.

    Raises:
        SettingError: if it holds a run already, or is not a directory.
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
        problem = f"={str(path)!r}: cannot be made ({reason}: {error.filename}); name a directory with {_TYPED}."
        raise SettingError(setting, problem) from error


def check_usable(setting: str, path: Path) -> None:
    """Refuse a typed directory that holds a run already, or a path that is no directory."""
    if path.exists() and not path.is_dir():
        raise SettingError(setting, f"={str(path)!r}: expected a directory; a file is there.")
    held = [name for name in _RUN_FILES if (path / name).exists()]
    if held or (path.is_dir() and any((child / "summary.json").exists() for child in path.iterdir())):
        raise SettingError(setting, f"={str(path)!r}: holds a run already; name a new directory.")


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
    """The same directory in every process that one torchrun started on this machine.

    What names the launch includes the process that started us: run ids and ports alone are often the defaults.
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
            raise TimeoutError(f"{note}: the first process has not made a run directory in {timeout_seconds:.0f} s.")
        time.sleep(0.02)
    return parent / note.read_text(encoding="utf-8")
