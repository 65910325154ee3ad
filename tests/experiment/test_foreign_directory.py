"""The command obeys no file of the current directory, which may come from an untrusted source."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from command import environment, small_run

PROGRAM = "#!/bin/sh\ntouch {}\nexit 1\n"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that does not exist. A program of an attack would create it."""
    return tmp_path / "it_ran"


@pytest.fixture
def env(tmp_path: Path, marker: Path) -> dict[str, str]:
    """An environment in which LaTeX is a program that creates ``marker``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("latex", "xelatex", "dvipng", "kpsewhich"):
        (folder / name).write_text(PROGRAM.format(marker))
        (folder / name).chmod(0o755)
    return {**environment(), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}


def run_code(code: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Python code as the command runs: the current directory is not on ``sys.path``. A hang fails after 200 s."""
    script = cwd.parent / "script.py"
    script.write_text(code)
    command = [sys.executable, str(script)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "cwd").mkdir()
    return tmp_path / "cwd"


RUN = f"import sys\nfrom loopwright.cli import main\nsys.exit(main({small_run('loop.max_steps=1')!r}))\n"
PYPLOT = (  # as torchmetrics and other packages import it
    "from loopwright.cli import main\nassert main(['--cfg', 'job']) == 0\n"
    "import matplotlib.pyplot as plt\nplt.figure().text(0, 0, 'x')\nplt.savefig('x.png')\n"
)


@pytest.mark.parametrize("code", [pytest.param(RUN, marks=pytest.mark.slow), PYPLOT], ids=["run", "pyplot"])
def test_settings_of_matplotlib_in_the_directory_run_no_latex(
    code: str, cwd: Path, env: dict[str, str], marker: Path
) -> None:
    (cwd / "matplotlibrc").write_text(
        "text.usetex: True\ntext.latex.preamble: \\\\immediate\\\\write18{touch it_ran}\n"
    )
    done = run_code(code, cwd, env)
    assert (done.returncode, marker.exists()) == (0, False), done.stderr
    assert "cannot be drawn" not in done.stderr


@pytest.mark.parametrize(
    "kind", ["pipe", pytest.param("device", marks=pytest.mark.slow), pytest.param("no text", marks=pytest.mark.slow)]
)
def test_a_matplotlibrc_that_cannot_be_read_does_not_matter(kind: str, cwd: Path, env: dict[str, str]) -> None:
    if kind == "pipe":
        os.mkfifo(cwd / "matplotlibrc")
    elif kind == "device":
        (cwd / "matplotlibrc").symlink_to("/dev/zero")
    else:
        (cwd / "matplotlibrc").write_bytes(b"\x1b[31m \xff: $\n")
    script = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))\n" + PYPLOT
    done = run_code(script, cwd, env)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_does_not_import_matplotlib_because_of_the_directory(cwd: Path, env: dict[str, str]) -> None:
    (cwd / "matplotlibrc").touch()
    code = "import sys\nfrom loopwright.cli import main\nmain(['--help'])\nassert 'matplotlib' not in sys.modules\n"
    assert run_code(code, cwd, env).returncode == 0


@pytest.mark.slow
def test_a_run_ends_well_among_traps(cwd: Path, env: dict[str, str], marker: Path) -> None:
    trap = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nraise SystemExit(9)\n"
    modules = ("sitecustomize", "usercustomize", "torch", "numpy", "yaml", "socket", "multiprocessing", "hydra_plugins")
    for name in modules:
        (cwd / f"{name}.py").write_text(trap)
    (cwd / "hydra_plugins").mkdir()
    (cwd / "hydra_plugins" / "planted.py").write_text(trap)
    for name in ("_ops.py", "_classes.py", ".env", ".netrc", "setup.cfg", "matplotlibrc", "pyproject.toml", "git"):
        os.mkfifo(cwd / name)  # torch looks for its own _ops.py and _classes.py
    words = small_run("loop.max_steps=1", "data.num_workers=1")
    done = run_code(RUN.replace(repr(small_run("loop.max_steps=1")), repr(words)), cwd, env)
    assert (done.returncode, marker.exists()) == (0, False), done.stderr
