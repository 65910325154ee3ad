"""Every command of `docs/sweeps.md` runs at a small size, and its tables of settings name settings that exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from command import Answer, run_in
from loopwright.experiment.console.command_line import SWEEP_VERBS
from loopwright.experiment.sweep.settings import read_sweep_settings

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
SMALL = ("loop.max_steps=4", "loop.eval_frequency=2", "checkpoint.every_n_steps=2", "device.num_threads=1")
COMMANDS = [
    shlex.split(line.partition("   #")[0])
    for block in re.findall(r"```bash\n(.*?)```", DOC, re.DOTALL)
    for line in block.splitlines()
]
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", DOC, re.DOTALL)


def needs_slurm(words: list[str]) -> bool:
    return "sweep.launcher=slurm" in words


def run_small(directory: Path, program: str, *words: str) -> Answer:
    """Run a command of the page. A command that trains new jobs gets the overrides of a short run."""
    assert program == "loopwright"
    return run_in(directory, *words, *(SMALL if "-m" in words else ()))


@pytest.mark.slow
def test_the_commands_run_in_their_order(tmp_path: Path) -> None:
    commands = [words for words in COMMANDS if not needs_slurm(words)]
    assert len(commands) >= 15 and {words[2] for words in commands if words[1] == "sweep"} >= {*SWEEP_VERBS}
    for words in commands:
        answer = run_small(tmp_path, *words)
        assert (answer.code, answer.err) == (0, ""), words
    files = sorted(tmp_path.glob("outputs/*/*/sweep.json"))
    indexes = {file.parent: json.loads(file.read_text()) for file in files}
    (written,) = [path for path, index in indexes.items() if index["settings"]["launcher"] == "none"]
    assert len(indexes.pop(written)["jobs"]) == 4
    assert [path.parent.name for path in written.glob("*/summary.json")] == ["0"]  # only this job was carried out
    assert {len(index["jobs"]) for index in indexes.values()} == {12, 4, 8}  # 6 jobs and 6 added jobs; a grid; searches
    assert {job["state"] for index in indexes.values() for job in index["jobs"]} == {"done"}


@pytest.mark.extras
def test_the_commands_with_optional_packages_run(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs the extra: pip install 'loopwright[slurm]'")
    (words,) = filter(needs_slurm, COMMANDS)
    answer = run_small(tmp_path, *words)
    assert (answer.code, answer.err) == (0, "")
    assert "4 of 4 jobs done" in answer.out


@pytest.mark.extras
def test_the_example_with_optuna_is_planned(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs the extra: pip install 'loopwright[optuna]'")
    answer = run_in(tmp_path, "plan", "-m", "hparams_search=tpe")
    assert (answer.code, answer.err) == (0, "")
    assert "30 proposals" in answer.out


def test_the_example_of_a_search_is_planned(tmp_path: Path) -> None:
    (tmp_path / "conf" / "hparams_search").mkdir(parents=True)
    (tmp_path / "conf" / "hparams_search" / "mine.yaml").write_text(EXAMPLE)
    answer = run_in(tmp_path, "plan", "-m", "--config-dir=conf", "hparams_search=mine", *SMALL)
    assert (answer.code, answer.err) == (0, "")
    assert "20 proposals" in answer.out and "[128, 128]" in answer.out


@pytest.mark.parametrize("name", ["learning_rate", "tpe"])
def test_a_shipped_search_begins_with_its_command_and_sets_only_the_sweep(name: str) -> None:
    text = (ROOT / "conf" / "hparams_search" / f"{name}.yaml").read_text()
    assert text.splitlines()[:2] == ["# @package _global_", f"# loopwright -m hparams_search={name}"]
    node = yaml.safe_load(text)
    assert list(node) == ["sweep"]
    assert read_sweep_settings(node["sweep"]).is_search


def test_the_named_settings_exist() -> None:
    known = yaml.safe_load((ROOT / "conf" / "sweep" / "default.yaml").read_text())
    named = re.findall(r"(?<![\w.])sweep\.(\w+)(?:\.(\w+))?", DOC)
    assert len(named) > 20
    for first, second in named:
        if first not in ("json", "csv", "md", "log", "html"):  # names of files
            assert first in known and (not second or second in known[first]), f"sweep.{first}.{second}"
