"""The command in a new process: imports, signals, and closed output streams."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import SMALL, environment


def _run(cwd: Path, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loopwright", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def no_torch(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which importing torch raises an error."""
    (tmp_path / "trap" / "torch").mkdir(parents=True)
    (tmp_path / "trap" / "torch" / "__init__.py").write_text("raise RuntimeError('torch was imported')\n")
    return environment(tmp_path / "trap")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "model: cnn, "),
        (["--version"], 0, "loopwright "),
        (["-sc", "install=bash"], 0, "complete "),
        (["config"], 0, "loop:"),
        (["loop.max_stepz=3"], 2, "loop.max_stepz=3: no such key. Did you mean loop.max_steps?"),
        (["data=digit"], 2, "data=digit: no such option. Available: csv, digits, "),
        (["seed=???"], 2, "seed=???: a value must be given."),
        (["seed=${nothing}"], 2, "seed: Interpolation key 'nothing' not found"),
        (["seed=[1"], 2, "seed=[1: cannot be read"),
        (["-m", "loop.max_steps=1,abc"], 2, "loop.max_steps='abc': expected"),
    ],
)
def test_help_completion_and_mistakes_import_no_torch(
    tmp_path: Path, no_torch: dict[str, str], words: list[str], code: int, said: str
) -> None:
    done = _run(tmp_path, *words, env=no_torch)
    assert done.returncode == code, done.stderr
    assert said in (done.stdout if code == 0 else done.stderr)
    assert done.stderr.count("\n") == (0 if code == 0 else 1)


def test_a_run_does_import_torch(tmp_path: Path, no_torch: dict[str, str]) -> None:
    done = _run(tmp_path, env=no_torch)
    assert done.returncode == 1
    assert done.stderr.startswith("RuntimeError: torch was imported")


def test_completion_offers_options(tmp_path: Path, no_torch: dict[str, str]) -> None:
    line = "loopwright model="
    done = _run(tmp_path, "-sc", "query=bash", env={**no_torch, "COMP_LINE": line, "COMP_POINT": str(len(line))})
    assert {"model=cnn", "model=mlp"} <= set(done.stdout.split())


def test_modules_in_the_current_directory_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "hydra_plugins").mkdir()
    for name in ("hydra_plugins/__init__", "hydra_plugins/evil", "yaml", "rich"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('foreign code was run')\n")
    done = _run(tmp_path, "config", env=environment())
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_sigint_marks_the_run_and_exits_130(tmp_path: Path) -> None:
    words = [*SMALL, "loop.max_steps=10000000", "loop.eval_frequency=null", "hydra.run.dir=out", "scheduler=none"]
    keys = [word.split("=")[0] for word in words]
    words = [word for i, word in enumerate(words) if word.split("=")[0] not in keys[i + 1 :]]
    process = subprocess.Popen(
        [sys.executable, "-m", "loopwright", *words],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # if the tests run in the background of a shell, SIGINT is ignored, and child processes inherit that
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 100
        while not (tmp_path / "out" / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    step = summary["global_step"]
    assert summary["state"] == "interrupted"
    assert step > 0
    assert said.splitlines() == [
        "",
        "Stopping after this step, and saving. Press Ctrl-C again to stop at once.",
        f"interrupted by SIGINT at global_step {step:,} (run directory: out)",
    ]
    assert (tmp_path / "out" / "checkpoints" / f"step_{step:08d}" / "manifest.json").exists()


@pytest.mark.slow
def test_a_closed_pipe_does_not_fail_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loopwright", *SMALL, "hydra.run.dir=out"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=100) == 0, said
    assert said == ""
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["state"] == "completed"


@pytest.mark.slow
def test_closed_streams_do_not_fail_the_command(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m loopwright loop.max_steps=5 hydra.run.dir=out >&- 2>&-'
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(), check=False)
    assert done.returncode == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["state"] == "completed"
