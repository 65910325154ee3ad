"""Control characters and characters that change the direction of text never reach the terminal."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from command import Answer
from loopwright.experiment.console.closing import closing_text
from loopwright.experiment.console.messages import complain, tell, warnings_on_one_line
from loopwright.terminal_text import encodable

Cli = Callable[..., Answer]

# Erase the screen, ring, set the title, a C1 control, delete, right-to-left override, an isolate, a zero-width space.
EVIL = "\x1b[2J\x07\x1b]0;x\x07\x9b\x7f\u202e\u2066\u200b"
FORGED = "4\nDone: everything is well."


def is_clean(answer: Answer) -> bool:
    return all(line.isprintable() for text in (answer.out, answer.err) for line in text.split("\n"))


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A directory of configuration files whose values and names contain such characters."""
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    text = "".join(f"\\u{ord(char):04x}" for char in EVIL)
    (folder / "x.yaml").write_text(f'# @package _global_\nobjective: "val/{text}"\nobjective_mode: min\n')
    (folder / f"evil{EVIL.replace('/', '')}.yaml").write_text("{}\n")
    (folder / "two\nlines.yaml").write_text("{}\n")
    return tmp_path / "conf"


@pytest.mark.hydra
def test_the_printed_configuration_is_the_same_in_escapes(conf: Path, cli: Cli) -> None:
    answer = cli("config", f"--config-dir={conf}", "experiment=x")
    assert answer.code == 0 and is_clean(answer), answer
    assert yaml.safe_load(answer.out)["objective"] == f"val/{EVIL}"
    umlauts = cli("config", "objective='val/größe'", "objective_mode=min")
    assert "objective: val/größe\n" in umlauts.out


@pytest.mark.hydra
@pytest.mark.parametrize(
    "words",
    [
        ["--cfg=job", "experiment=x"],
        ["--cfg=job", "experiment=x", "--resolve"],
        ["--info=defaults-tree", "experiment=x"],
        ["--info=searchpath"],
        ["experiment=y"],
        ["plan", "experiment=x"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_no_command_on_foreign_files_prints_such_characters(words: list[str], conf: Path, cli: Cli) -> None:
    answer = cli(*words, f"--config-dir={conf}")
    assert is_clean(answer), answer
    assert answer.err.count("\n") <= 1
    if words == ["--help"]:
        (line,) = [line for line in answer.out.split("\n") if line.startswith("  experiment: ")]
        assert "two\\nlines" in line and "evil\\x1b[2J" in line


@pytest.mark.parametrize("step", [EVIL, FORGED, [EVIL], "x" * 100_000])
def test_a_completed_run_is_reported_in_its_one_line(step: object, recorded: Path, cli: Cli) -> None:
    file = recorded / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"global_step": step}))
    answer = cli("resume", "run")
    assert answer.code == 0 and is_clean(answer), answer
    assert answer.out.count("\n") == 1 and len(answer.out) < 1_000


def test_closing_lines_are_not_forged() -> None:
    best = {"name": FORGED + EVIL, "value": 1.0, "step": 3}
    text = closing_text("Done.", {FORGED: 1.0}, best, Path("a  b"), {"Resume it": "loopwright resume 'a  b'"})
    assert len(text.split("\n")) == 5 and all(line.isprintable() for line in text.split("\n"))
    assert text.endswith("Run directory: a  b\nResume it: loopwright resume 'a  b'")


def test_warnings_are_printed_on_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("loopwright.x"), "propagate", False)  # pytest handles what propagates
    with warnings.catch_warnings(), warnings_on_one_line():
        warnings.simplefilter("always")
        warnings.warn(f"photo {EVIL}\nsecond line", UserWarning, stacklevel=1)
        logging.getLogger("loopwright.x").warning("%s\nis bad", EVIL)
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) == 3 and all(line.isprintable() for line in lines)
    assert lines[0].startswith("UserWarning: photo \\x1b[2J") and lines[0].endswith("second line")


def test_texts_and_problems_are_printed_in_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"a\u00a0b\u3000c {EVIL}\nd\te\rf")
    complain("x" * 1_000_000)
    said = capsys.readouterr()
    escaped = r"\x1b[2J\x07\x1b]0;x\x07\x9b\x7f\u202e\u2066\u200b"
    assert said.out == f"a\u00a0b\u3000c {escaped}\nd\\te\\rf\n"
    assert len(said.err) == 10_001 and said.err.endswith("…\n")
    assert encodable("größe\n" + EVIL, "ascii") == "gr\\xf6\\xdfe\n" + escaped
    assert re.search("\x1b", encodable(EVIL, None)) is None
