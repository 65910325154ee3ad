"""Run directories are never shared by two runs."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.rundir import directory
from loopwright.experiment.rundir.directory import allocate, use

_ALLOCATE = """
import sys, time
from datetime import datetime
import loopwright.experiment.rundir.directory as rundir
class Frozen(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5)
rundir.datetime = Frozen
sys.stdin.read()
print(rundir.allocate("same", is_sweep=False))
"""


def _start(cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _ALLOCATE],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _release(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Release all processes at the same time, and collect their output."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    return [process.communicate(timeout=100)[0].strip() for process in processes]


def test_16_processes_in_one_second_make_16_directories(tmp_path: Path) -> None:
    made = _release([_start(tmp_path) for _ in range(16)])
    assert len(set(made)) == 16
    assert all(path.startswith("outputs/same/2026-01-02_03-04-05_") and (tmp_path / path).is_dir() for path in made)


def test_an_existing_directory_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = SimpleNamespace(now=lambda: datetime(2026, 1, 2, 3, 4, 5))
    ids = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(directory, "datetime", frozen)
    monkeypatch.setattr(directory.secrets, "token_hex", lambda num_bytes: next(ids))
    made = [allocate("same", is_sweep=False).name for _ in range(2)]
    assert made == ["2026-01-02_03-04-05_aaaaaa", "2026-01-02_03-04-05_bbbbbb"]


def test_the_directory_of_a_sweep_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert allocate("x", is_sweep=True).name.endswith("_sweep")


def test_a_typed_directory_is_used_exactly_unless_it_holds_a_run(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert use("hydra.run.dir", str(path)) == path
    assert path.is_dir()
    use("hydra.run.dir", str(path))
    (path / "summary.json").touch()
    with pytest.raises(SettingError, match=r"^hydra\.run\.dir=.*: contains a run already; name a new directory\.$"):
        use("hydra.run.dir", str(path))
    with pytest.raises(SettingError, match="contains a run already"):
        use("hydra.sweep.dir", str(path.parent))
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="expected a directory, found a file"):
        use("hydra.run.dir", str(tmp_path / "file"))
