"""Sweeps whose jobs have processes of their own: what the command prints before the jobs, and the memory it needs."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer, run_process, small_run
from sweep_processes import FAULT, Command, is_left_alone, wait_for
from sweeps import index_of, states_of

MAX_MIB = 150
BASE = small_run(
    "--trust=mine",
    "+callbacks.fault._target_=mine.Fault",
    "data.num_train=96",
    "device.num_threads=1",
    "loop.max_steps=24",
)
PARALLEL = "sweep.num_parallel=2"
# The jobs are checked while this module is imported.
WAITING = f"""
import os, time

if os.path.exists("waits"):
    os.rename("waits", "waiting")
    time.sleep(1000)
{FAULT}"""


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(WAITING)
    return tmp_path


def mebibytes(process_id: int, name: str) -> float:
    """Return a value of ``/proc/ID/status``, such as the largest resident memory, VmHWM."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{process_id}/status").read_text(), flags=re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs /proc")
def test_the_runner_of_processes_needs_little_memory_and_no_torch(there: Path) -> None:
    (there / "slow-10").touch()
    (there / "slow-11").touch()
    with Command(there, "-m", *BASE, "seed=range(0,12)", "hydra.sweep.dir=s", PARALLEL) as command:
        wait_for((there / "s" / "11" / "metrics.jsonl").exists, command)
        maps = Path(f"/proc/{command.process_id}/maps").read_text()
        assert "libtorch" not in maps and "matplotlib" not in maps
        assert mebibytes(command.process_id, "VmHWM") < MAX_MIB
        for number in ("10", "11"):
            (there / f"slow-{number}").unlink()
        code, text = command.end()
    assert code == 0, text
    assert states_of(there / "s") == ["done"] * 12 and (there / "s" / "curves.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "is_group", "expected", "line"),
    [
        (signal.SIGINT, True, 130, "interrupted\n"),
        (signal.SIGINT, False, 130, "interrupted\n"),
        (signal.SIGTERM, False, 143, ""),
        (signal.SIGKILL, False, -signal.SIGKILL, ""),
    ],
)
def test_a_signal_during_the_checks_leaves_nothing(
    there: Path, number: signal.Signals, is_group: bool, expected: int, line: str
) -> None:
    (there / "waits").touch()
    with Command(there, "-m", *BASE, "seed=0,1", "hydra.sweep.dir=s", PARALLEL) as command:
        wait_for((there / "waiting").exists, command)
        (command.signal_group if is_group else command.signal)(number)
        assert command.end() == (expected, line)
        assert is_left_alone(there, within_seconds=60.0)  # the server ends after its imports
    assert not (there / "s").exists()


@pytest.mark.slow
def test_checks_that_are_killed_end_the_sweep(there: Path) -> None:
    (there / "mine.py").write_text(f"import os\n\nos.kill(os.getpid(), {int(signal.SIGKILL)})\n{FAULT}")
    _, done = run_process(there, "-m", *BASE, "seed=0,1", "hydra.sweep.dir=s", PARALLEL)
    assert (done.code, done.out, done.err) == (1, "", "the process that checks the jobs was killed by SIGKILL.\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["seed=0,1", "loop.max_stebs=3"],
        ["optimizer.lr=0.1,-1"],
        ["seed=0,1", "max_restarts=2"],
        ["seed=0,1", "ckpt_path=nowhere"],
        ["seed=0,1", "model._target_=mine.Model"],
        ["loop.eval_frequency=1,${oc.env:LW_TEST_TOKEN}", "--allow-env=LW_TEST_TOKEN"],
    ],
    ids=lambda words: words[-1],
)
def test_errors_are_the_same_for_each_launcher(
    cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("LW_TEST_TOKEN", "swordfish")
    (tmp_path / "conf").mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.loopwright]\nconfig_dir = 'conf'\n")
    inline, process = (
        cli("-m", *small_run(*words, f"sweep.launcher={launcher}")) for launcher in ("inline", "process")
    )
    assert process == inline
    assert inline.code in (2, 3) and inline.err.count("configuration directory of") == 1
    assert "swordfish" not in inline.err and not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_the_index_is_the_same_for_each_launcher(there: Path) -> None:
    words = [*BASE, "optimizer.lr=0.1,0.01", "seed=0,1"]
    for name, settings in (("inline", ()), ("process", (PARALLEL,))):
        _, done = run_process(there, "-m", *words, f"hydra.sweep.dir={name}", *settings)
        assert done.code == 0, done.err
    inline, process = (index_of(there / name) for name in ("inline", "process"))
    assert process["overrides"] == [*inline["overrides"], PARALLEL]
    for name in ("config_dir", "trust", "cwd", "state", "objective", "factors", "own_values", "seeds"):
        assert process[name] == inline[name], name
    assert process["command"] == ["loopwright", "-m", *words, "hydra.sweep.dir=process", PARALLEL]
