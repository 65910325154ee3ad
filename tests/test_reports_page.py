"""The commands of `docs/reports.md` run in their order, and its pictures exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from command import run_in

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "reports.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_commands_run_and_write_the_pages(tmp_path: Path) -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    commands = [shlex.split(line.partition("   #")[0]) for line in block.splitlines()]
    assert len(commands) == 5
    for program, *words in commands:
        assert program == "loopwright"
        answer = run_in(tmp_path, *words)
        assert (answer.code, answer.err) == (0, ""), words
    assert len(list(tmp_path.glob("outputs/*/*/report.html"))) == 1 and (tmp_path / "page.html").exists()
    assert len(list(tmp_path.glob("outputs/*/*/sweep.html"))) == 1


def test_the_pictures_exist() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", TEXT)
    assert len(pictures) == 6 and all((DOCS / name).stat().st_size > 10_000 for name in pictures)
