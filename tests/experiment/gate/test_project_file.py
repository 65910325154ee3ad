"""The directory of configuration files that the ``pyproject.toml`` of the current directory names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Answer, small_run
from gate_attacks import PLANTED, plant

Cli = Callable[..., Answer]
OPTION = "_target_: loopwright.models.MLP\nin_features: 64\nnum_classes: 10\nhidden: [3]\n"


@pytest.fixture
def project(cli: Cli, tmp_path: Path) -> Path:
    write(tmp_path, "config_dir = 'conf'")
    for folder in ("conf", "other"):
        (tmp_path / folder / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(OPTION)
    (tmp_path / "other" / "model" / "theirs.yaml").write_text(OPTION)
    return tmp_path


def write(folder: Path, lines: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.loopwright]\n{lines}\n")


def said(project: Path) -> str:
    return f"loopwright: configuration directory of {project / 'pyproject.toml'}: conf\n"


@pytest.mark.slow
def test_its_options_are_found_as_with_the_flag(project: Path, cli: Cli) -> None:
    typed = cli("--config-dir", "conf", "config", "model=mine")
    assert typed.err == ""
    assert cli("config", "model=mine") == Answer(0, typed.out, said(project))
    assert "model: cnn, gpt, mine, mlp, mlp_regressor, vit" in cli("--help").out
    assert cli("--info", "defaults", "model=mine").code == 0
    answer = cli("-m", *small_run("model=mine", "hydra.sweep.dir=out", "loop.max_steps=1,2"))
    assert (answer.code, answer.err) == (0, said(project))
    assert "--config-dir=conf" in json.loads((project / "out" / "0" / "summary.json").read_text())["command"]


def test_a_typed_directory_replaces_it(project: Path, cli: Cli) -> None:
    answer = cli("--config-dir", "other", "config", "model=theirs")
    assert (answer.code, answer.err) == (0, "")
    assert cli("--config-dir", "other", "config", "model=mine").code == 2


def test_commands_on_a_recorded_run_do_not_read_it(project: Path, recorded: Path, cli: Cli) -> None:
    write(project, "config_dir = 'nowhere'")
    assert cli("validate", "run").code == 0


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("config_dir = '/tmp'", "config_dir='/tmp': expected the relative path of a directory inside the directory of"),
        ("config_dir = '../x'", "config_dir='../x': expected the relative path of a directory inside"),
        ("config_dir = 'conf/../../x'", "config_dir='conf/../../x': expected the relative path of a directory inside"),
        ("config_dir = 'link'", "config_dir='link': expected the relative path of a directory inside"),
        ("config_dir = 'link/model'", "config_dir='link/model': expected the relative path of a directory inside"),
        ('config_dir = "a\\u001b[2J"', r"config_dir='a\x1b[2J': expected the relative path of a directory inside"),
        ('config_dir = "a\\u0000"', r"config_dir='a\x00': expected the relative path of a directory inside"),
        ("config_dir = 'loop'", "config_dir='loop': expected an existing directory."),
        ("config_dir = 'nowhere'", "config_dir='nowhere': expected an existing directory."),
        ("config_dir = 'pyproject.toml'", "config_dir='pyproject.toml': expected an existing directory."),
        (f"config_dir = '{'x' * 300}'", f"config_dir='{'x' * 78}…: expected an existing directory."),
        ("config_dir = 3", "config_dir=3: expected the relative path of a directory."),
        ("config_dir = ['conf']", "config_dir=['conf']: expected the relative path of a directory."),
        ("config_dri = 'conf'", "config_dri: no such key. Available: config_dir, trust. Did you mean config_dir?"),
        ("config_dir = ", "pyproject.toml="),
    ],
)
def test_other_values_are_refused_in_one_line(
    lines: str, problem: str, project: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "model").mkdir()
    (project / "link").symlink_to(outside)
    (project / "loop").symlink_to("loop")
    write(project, lines)
    for words in (["config"], ["plan"], ["--help"]):
        answer = cli(*words)
        assert (answer.code, answer.err.count("\n"), answer.out) == (2, 1, "")
        assert problem in answer.err


def test_a_checkout_with_a_project_file_runs_nothing(project: Path, cli: Cli) -> None:
    """An option in its directory runs no code of the checkout, and a link does not lead out of the directory."""
    marker = plant(project)
    (project / "conf" / "model" / "evil.yaml").write_text(f"_target_: {PLANTED}.Model\n")
    (project / "conf" / "optimizer").mkdir()
    (project / "outside.yaml").write_text("_target_: loopwright.optim.sgd\n")
    (project / "conf" / "optimizer" / "linked.yaml").symlink_to(project / "outside.yaml")
    assert cli("plan").code == 0
    for word, problem in (
        ("model=evil", f"model._target_='{PLANTED}.Model': expected a class or function that Loopwright allows"),
        ("optimizer=linked", "through a link; copy the file"),
    ):
        answer = cli("plan", word)
        assert (answer.code, problem in answer.err) == (2, True), answer.err
    assert not marker.exists()
