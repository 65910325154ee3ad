"""The command ``loopwright report`` and the setting ``report=true``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer
from records.report.pages import Page, make_run

Cli = Callable[..., Answer]
POINTS = {"val/loss": [(1, 0.5), (2, 0.25)]}


def test_the_report_of_a_real_run_is_complete(cli: Cli, recorded: Path) -> None:
    answer = cli("report", "run")
    assert answer.code == 0 and answer.out.startswith("Report: run/report.html (")
    page = Page((recorded / "report.html").read_text())
    assert page.is_balanced and "✓ completed" in page.text and "loopwright validate run" in page.text
    assert "loop.max_steps=8" in page.text  # the command that trains for longer
    (folder,) = (recorded / "checkpoints").glob("step_00000004")
    assert folder.name in page.text and "mlp" in page.text.lower()


def test_a_run_writes_its_report_if_asked(small: Cli) -> None:
    assert small("report=true", "hydra.run.dir=a").code == 0
    assert "✓ completed" in Page(Path("a/report.html").read_text()).text
    assert small("hydra.run.dir=b").code == 0 and not Path("b/report.html").exists()
    refused = small("report=1", "hydra.run.dir=c")
    assert refused.code == 2 and refused.err.startswith("report=1: expected true or false")


def test_several_runs_have_one_page(cli: Cli, tmp_path: Path) -> None:
    first = make_run(tmp_path, POINTS, changes={"optimizer.lr": [0.003, 0.01]})
    second = make_run(tmp_path, POINTS, folder="2026-12-01_09-15-05_aaaaaa")
    answer = cli("report", str(first), str(second))
    assert answer.code == 0 and answer.out.startswith("Report: comparison.html (")
    page = Page((tmp_path / "comparison.html").read_text())
    (chart,) = page.data["charts"].values()
    assert [each["name"] for each in chart["series"]] == ["c623ba", "aaaaaa"]
    assert "optimizer.lr" in page.text and "0.003" in page.text and "0.01" in page.text
    assert not list(first.glob("*.html"))


def test_output_names_the_file(cli: Cli, tmp_path: Path) -> None:
    run = make_run(tmp_path, POINTS)
    assert cli("report", str(run), "output=page.html").code == 0
    assert (tmp_path / "page.html").exists() and not (run / "report.html").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_directory_that_cannot_be_written_names_the_option(cli: Cli, tmp_path: Path) -> None:
    run = make_run(tmp_path, POINTS)
    run.chmod(0o500)
    answer = cli("report", str(run))
    assert answer.code == 2 and "name a file with output=FILE" in answer.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["report"], 2, "expected a run directory"),
        (["report", "missing"], 3, "no such folder; expected a run directory"),
        (["report", "."], 3, "no run; expected a run directory"),
        (["report", "last"], 3, "last: no training in outputs/"),
        (["report", "RUN", "output=missing/x.html"], 2, "cannot be written (No such file or directory)"),
        (["report", "RUN", "output=RUN"], 2, "cannot be written (Is a directory)"),
        (["report", "RUN", "outpt=x"], 2, "outpt=x: no such option. Available: output. Did you mean output?"),
    ],
)
def test_wrong_input_gives_one_line(cli: Cli, tmp_path: Path, words: list[str], code: int, message: str) -> None:
    make_run(tmp_path, POINTS).rename(tmp_path / "RUN")
    answer = cli(*words)
    assert answer.code == code and message in answer.err and answer.err.count("\n") == 1


def test_the_command_imports_neither_torch_nor_hydra_nor_matplotlib(tmp_path: Path) -> None:
    run = make_run(tmp_path, POINTS)
    code = "import sys; from loopwright.cli import main; assert main(sys.argv[1:]) == 0; "
    code += "print(sorted({'torch', 'hydra', 'omegaconf', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, "report", str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
