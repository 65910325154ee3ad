"""The commands of `docs/runs.md` run, and the drawn output is the real output apart from numbers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from command import run_in
from loopwright.experiment.reading.conditions import STATES
from loopwright.experiment.reading.keys import KEYS

DOC = (Path(__file__).parents[1] / "docs" / "runs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash)?\n(.*?)```", DOC, re.DOTALL)
_SHOWN = re.compile(r"\$ (.+)\n")


def masked(text: str) -> list[str]:
    """Return the lines of an output, without ids, times, numbers, sparklines, and repeated spaces."""
    text = re.sub(r"\d{4}-\d\d-\d\d_[\d-]+_[0-9a-f]{6}|\b[0-9a-f]{6}\b", "RUN", text)
    text = re.sub(r"just now|\d+ min ago", "WHEN", text)
    text = re.sub(r"[▁▂▃▄▅▆▇█×]{2,}", "COURSE", text)
    text = re.sub(r"\d[\d,.:]*(e[-+]\d+)?( kB| s\b)?", "N", text)
    return [re.sub(" +", " ", line).rstrip() for line in text.splitlines()]


@pytest.mark.slow
def test_the_commands_run_and_the_drawn_output_is_real(tmp_path: Path) -> None:
    num_drawn = 0
    for language, block in BLOCKS:
        drawn = _SHOWN.match(block)
        lines = block.splitlines() if language == "bash" else [] if drawn is None else [drawn[1]]
        assert lines, block
        for line in lines:
            program, *words = shlex.split(line.partition("   #")[0])
            answer = run_in(tmp_path, *words)
            assert program == "loopwright" and (answer.code, answer.err) == (0, ""), words
            assert "None of the" not in answer.out
            if drawn is not None:
                assert masked(answer.out) == masked(block[drawn.end() :])
                num_drawn += 1
    assert num_drawn == 5


def test_all_columns_and_states_are_listed() -> None:
    assert all(f"`{key}`" in DOC for key in (*KEYS, *STATES))
