"""The counter that tells whether the kernel has killed processes because the memory was used up."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.launch import out_of_memory
from loopwright.experiment.launch.job_process import JobProcess
from loopwright.experiment.sweep import launchers
from loopwright.experiment.sweep.slots import Slot


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files of a kernel: a control group of its own with 2 kills, of 5 on the machine."""
    (tmp_path / "cgroup").write_text("0::/user.slice/session\n")
    (tmp_path / "groups" / "user.slice" / "session").mkdir(parents=True)
    (tmp_path / "groups" / "user.slice" / "session" / "memory.events").write_text("oom 3\noom_kill 2\noom_group 1\n")
    (tmp_path / "vmstat").write_text("nr_free 9\noom_kill 5\n")
    names = {"_OWN_GROUP": "cgroup", "_ALL_GROUPS": "groups", "_WHOLE_MACHINE": "vmstat"}
    for name, file in names.items():
        monkeypatch.setattr(out_of_memory, name, tmp_path / file)
    return tmp_path


def test_the_count_is_that_of_the_group_else_that_of_the_machine(machine: Path) -> None:
    assert out_of_memory.count_oom_kills() == 2
    (machine / "cgroup").write_text("4:memory:/a\n0::/\n")
    assert out_of_memory.count_oom_kills() == 5
    (machine / "vmstat").write_text("oom_kill many\n")
    assert out_of_memory.count_oom_kills() is None
    (machine / "vmstat").unlink()
    assert out_of_memory.count_oom_kills() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "failure"),
    [((4, 5), "out of memory: the kernel killed the process"), ((4, 4), None), ((None, 5), None)],
)
def test_a_job_that_the_kernel_killed_for_memory_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Sequence[int | None], failure: str | None
) -> None:
    found = iter(counts)
    monkeypatch.setattr(launchers, "count_oom_kills", lambda: next(found))
    (tmp_path / "0").mkdir()
    processes = launchers.Processes(tmp_path, Trust(), [Slot(name="", environment={})])
    started: list[JobProcess] = []

    def start(*arguments: object) -> JobProcess:
        process = JobProcess(["--version"], {}, tmp_path / "output.log")
        os.kill(process.process_id, signal.SIGKILL)
        started.append(process)
        return process

    monkeypatch.setattr(launchers, "JobProcess", start)
    processes.start(0)
    (ended,) = processes.poll(60.0)
    assert (ended.outcome.exit_code, ended.failure) == (-signal.SIGKILL, failure)
    assert processes.num_free == 1
