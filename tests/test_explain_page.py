"""The commands of `docs/explain.md` run, and the drawn output is the real output apart from line numbers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from command import run_in

DOC = (Path(__file__).parents[1] / "docs" / "explain.md").read_text(encoding="utf-8")
DRAWN = re.findall(r"```\n\$ loopwright ([^\n]*)\n(.*?)```", DOC, re.DOTALL)
(MESSAGE,) = re.findall(r"```\n(loop\.[^\n]*)\n```", DOC)


def masked(text: str) -> str:
    return re.sub(r"(\.yaml:)\d+", r"\1N", text)


def test_the_drawn_output_is_real(tmp_path: Path) -> None:
    assert len(DRAWN) == 5
    for line, drawn in DRAWN:
        answer = run_in(tmp_path, *shlex.split(line))
        assert (answer.code, answer.err) == (0, "")
        *parts, rest = masked(drawn).split("…\n")
        output, position = masked(answer.out), 0
        for part in parts:  # a line with … stands for lines that are not drawn
            position = output.index(part, position) + len(part)
        assert rest in ("", output) and bool(parts) == (rest == "")


def test_the_message_of_a_wrong_value_is_real(tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "experiment").mkdir(parents=True)
    text = "# @package _global_\n# A run.\n\nname: first\nloop:\n  eval_frequency: 1.5\n"
    (tmp_path / "my_conf" / "experiment" / "first.yaml").write_text(text)
    answer = run_in(tmp_path, "config", "--config-dir=my_conf", "experiment=first")
    assert (answer.code, answer.out, answer.err) == (2, "", f"{MESSAGE}\n")
