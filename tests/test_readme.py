"""Every command and every example of the README runs; long ones run with fewer steps."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import pytest

from loopwright.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = [
    shlex.split(line.partition("#")[0])
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def small(words: list[str]) -> list[str]:
    """Return the command with a tenth of the steps."""
    return [re.sub(r"^(loop\.(?:num_steps|max_steps|eval_frequency)=\d+)0$", r"\1", word) for word in words]


@pytest.mark.slow
def test_the_commands_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) >= 9
    for program, *words in COMMANDS:
        assert program == "loopwright"
        assert main(small(words)) == 0, words
    said = capsys.readouterr().out
    assert "val (50 of 79)" in said
    assert "step_00000100" in said


def test_the_examples_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(EXAMPLES) == 2
    text = "".join(EXAMPLES).replace("num_steps=1000, eval_frequency=100", "num_steps=100, eval_frequency=10")
    names: dict[str, object] = {"__name__": "readme"}
    with contextlib.redirect_stdout(None):
        exec(compile(text, "README.md", "exec"), names)
    stages = list(names["result"].plan)  # type: ignore[attr-defined]
    assert [(stage.step, stage.num_batches) for stage in stages if hasattr(stage, "num_batches")] == [
        (step, 50) for step in range(10, 101, 10)
    ]
    assert len(names["rows"]) == 10  # type: ignore[arg-type]


def test_it_names_the_two_commands_and_stays_short() -> None:
    assert "make train" in README and "make test" in README
    assert len(README.splitlines()) < 200
