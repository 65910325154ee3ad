"""Tests that docs/callbacks.md lists every option of ``callbacks``, and that its command works."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from command import run_dirs
from loopwright.cli import main
from loopwright.shipped import conf_dir

DOC = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text(encoding="utf-8")
ENDED = re.compile(r"Done: stopped by early_stopping at global_step (\d+) after .* s: (val/loss is .*)\.\n")
OPTIONS = dict(re.findall(r"^\| `(\w+)`(?: \(default\))? \| `(\w+)` \|", DOC, re.MULTILINE))


def test_the_table_lists_every_option_with_its_class() -> None:
    shipped = {}
    for file in conf_dir().glob("callbacks/*.yaml"):
        node = yaml.safe_load(file.read_text(encoding="utf-8"))
        if file.stem in node:
            shipped[file.stem] = node[file.stem]["_target_"].rpartition(".")[2]
    assert shipped == OPTIONS


@pytest.mark.slow
def test_the_command_stops_early_and_a_resume_trains_no_further_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def loopwright(*words: str) -> str:
        assert main(list(words)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"```bash\n(.*?)```", DOC, re.DOTALL)
    program, *words = shlex.split(command.replace("eval_frequency=50", "eval_frequency=2"))
    words += ["loop.max_steps=20", "callbacks.early_stopping.min_delta=100"]
    assert program == "loopwright"
    output = loopwright(*words)
    assert "Validate it: " in output
    assert "Train it for longer: " not in output  # a longer run would be stopped at once
    (ended,) = ENDED.findall(output)
    assert ended[0] == "12" and "was not improved by more than 100 in 5 validations" in ended[1]
    (begun,) = run_dirs(tmp_path)
    metrics = json.loads((begun / "summary.json").read_text(encoding="utf-8"))["metrics"]
    averaged = f"val/loss {metrics['val/loss']:.4g}"
    assert averaged in loopwright("validate", str(begun))
    assert averaged not in loopwright("loop=validation", f"ckpt_path={begun}")
    nothing = "Done: trained nothing; the run was stopped by early_stopping at global_step 12."
    assert nothing in loopwright(*words, f"ckpt_path={begun}")
    assert nothing in loopwright("resume", str(begun))
    assert nothing in loopwright("resume", str(begun), "loop.max_steps=40")
    (later,) = ENDED.findall(loopwright("resume", str(begun), "callbacks.early_stopping.patience=7"))
    assert later[0] == "16" and "in 7 validations" in later[1]
