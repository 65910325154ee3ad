"""`--allow-env NAME`: a configuration reads a variable, and no file and no message contains its value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from command import SMALL, Answer
from loopwright import load_model
from loopwright.errors import SettingError
from loopwright.experiment.console.command_line import read_command_line, words_on

Cli = Callable[..., Answer]
SECRET = "hunter2-\"hunter2'\\é"
MODULE = """
from loopwright.models import MLP

class Model(MLP):
    def __init__(self, token: str, tags: list[str], **settings):
        super().__init__(**settings)
        self.secret, self.tags = token, tags

    def forward(self, batch):
        assert self.tags[0] == "a-" + self.secret
        if self.tags[1] == "fails":
            raise ValueError(f"bad token {self.secret}")
        return super().forward(batch)
"""
OPTION = """
_target_: allow_env_mine.Model
token: ${oc.env:LW_TEST_TOKEN}
tags: ["a-${..token}", b]
in_features: 64
num_classes: 10
hidden: [4]
"""
TRUST = ("--trust", "allow_env_mine")
ALLOW = ("--allow-env", "LW_TEST_TOKEN")
WORDS = ("--config-dir", "conf", *TRUST, "model=mine", *(word for word in SMALL if not word.startswith("model.")))
MISSING = (
    "model.token: oc.env:LW_TEST_TOKEN: a configuration may not read this environment variable; add --allow-env "
    "LW_TEST_TOKEN only if the configuration may know its value.\n"
)


@pytest.fixture
def project(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LW_TEST_TOKEN", SECRET)
    (tmp_path / "allow_env_mine.py").write_text(MODULE)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(OPTION)
    return tmp_path


def check(answer: Answer, folder: Path) -> None:
    """Check that neither the output nor a file contains a part of the value."""
    assert "hunter2" not in answer.out + answer.err
    for file in folder.rglob("*"):
        assert "hunter2" not in str(file)
        assert not file.is_file() or b"hunter2" not in file.read_bytes(), file


@pytest.mark.slow
def test_the_value_is_used_but_neither_recorded_nor_printed(project: Path, cli: Cli) -> None:
    refused = cli(*WORDS, "hydra.run.dir=run")
    assert refused == Answer(2, "", f"{MISSING.rstrip()} Set by conf/model/mine.yaml:3.\n")
    assert not (project / "run").exists()
    answer = cli(*WORDS, *ALLOW, "hydra.run.dir=run", "scheduler=none")
    assert answer.code == 0, answer.err
    check(answer, project / "run")
    model = yaml.safe_load((project / "run" / "config.yaml").read_text())["model"]
    assert (model["token"], model["tags"]) == ("${oc.env:LW_TEST_TOKEN}", ["a-${oc.env:LW_TEST_TOKEN}", "b"])
    commands = [line.partition(": ")[2] for line in answer.out.splitlines() if ": loopwright " in line]
    assert len(commands) == 2
    assert all("--trust=allow_env_mine --allow-env=LW_TEST_TOKEN run" in command for command in commands)

    recorded = (project / "run" / "config.yaml").read_text()
    for words in (["reproduce", "run"], ["validate", "run"], ["predict", "run"], ["resume", "run", "loop.max_steps=6"]):
        assert cli(*words, *TRUST) == Answer(2, "", MISSING)
        answer = cli(*words, *TRUST, *ALLOW)
        assert answer.code == 0, answer.err
        check(answer, project / "run")
    check(answer, project / "outputs")
    assert (project / "run" / "config.yaml").read_text() == recorded.replace("max_steps: 4", "max_steps: 6")


@pytest.mark.slow
def test_a_recorded_model_is_loaded_with_the_variable(project: Path, cli: Cli) -> None:
    assert cli(*WORDS, *ALLOW, "hydra.run.dir=run").code == 0
    with pytest.raises(SettingError, match=r"^model\.token: oc\.env:LW_TEST_TOKEN: a configuration may not read"):
        load_model("run", trust="allow_env_mine")
    assert load_model("run", trust="allow_env_mine", allow_env="LW_TEST_TOKEN").secret == SECRET


def test_errors_and_logs_are_masked(project: Path, cli: Cli) -> None:
    words = ["hydra.run.dir=run", "model.tags=['a-${model.token}',fails]"]
    answer = cli(*WORDS, *ALLOW, *words)
    assert answer.code == 1
    assert answer.err.startswith("ValueError: bad token ${oc.env:LW_TEST_TOKEN}")
    check(answer, project / "run")
    assert "bad token ${oc.env:LW_TEST_TOKEN}" in json.loads((project / "run" / "summary.json").read_text())["error"]
    assert "ValueError: bad token ${oc.env:LW_TEST_TOKEN}" in (project / "run" / "run.log").read_text()
    answer = cli(*WORDS, *ALLOW, "loop.eval_frequency=${oc.env:LW_TEST_TOKEN}")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    check(answer, project / "outputs")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["config"], ["--cfg", "job", "--resolve"], ["--info", "config"], ["plan"], ["plan", "-m", "seed=1,2"]]
)
def test_printed_configurations_and_plans_are_masked(project: Path, cli: Cli, words: list[str]) -> None:
    answer = cli(*words, *WORDS, *ALLOW)
    assert answer.code == 0, answer.err
    check(answer, project / "outputs")
    if words[0] in ("config", "--cfg"):
        assert "token: ${oc.env:LW_TEST_TOKEN}" in answer.out


@pytest.mark.slow
def test_a_sweep_records_the_flag_in_each_job(project: Path, cli: Cli) -> None:
    answer = cli("-m", *WORDS, *ALLOW, "optimizer.lr=0.1,0.2", "hydra.sweep.dir=sweep")
    assert answer.code == 0, answer.err
    check(answer, project / "sweep")
    for number in range(2):
        assert "--allow-env=LW_TEST_TOKEN" in (project / "sweep" / str(number) / "command.txt").read_text()


@pytest.mark.slow
def test_data_in_a_directory_that_a_variable_names(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project / "hunter2"
    folder.mkdir()
    monkeypatch.setenv("LW_TEST_ROOT", str(folder))
    (folder / "rows.csv").write_text("a,b,price\n" + "".join(f"{row},{row % 3},{row}\n" for row in range(40)))
    allow, path = ("--allow-env", "LW_TEST_ROOT"), "data.path=${oc.env:LW_TEST_ROOT}"
    words = ["data=csv", "data.target=price", "model=mlp_regressor", "model.in_features=2", "loop.max_steps=2"]
    answer = cli(*words, *allow, f"{path}/rows.csv", "device=cpu", "data.batch_size=4", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    check(answer, project / "run")
    assert cli("predict", "run", *allow, f"{path}/rows.csv", "output=out.csv").code == 0
    assert cli("validate", "run", *allow).code == 0
    answer = cli("resume", "run", *allow, f"{path}/rows.csv", "loop.max_steps=3")
    assert answer.code == 0, answer.err
    check(answer, project / "run")
    for verb in ("predict", "resume"):
        assert "--allow-env LW_TEST_ROOT" in cli(verb, "run", f"{path}/rows.csv").err
    answer = cli(*words, *allow, f"{path}/none.csv")
    assert answer.err == "data.path='${oc.env:LW_TEST_ROOT}/none.csv': no such file. Did you mean rows.csv?\n"
    answer = cli("reproduce", "run", *allow, "hydra.run.dir='${oc.env:LW_TEST_ROOT}/x'")
    assert answer.err.startswith("hydra.run.dir: contains ${oc.env:NAME}, whose value would be visible in the path")


@pytest.mark.parametrize(
    "word", ["name='${oc.env:LW_TEST_TOKEN}'", "hydra.run.dir='x/${model.token}'", "experiment=named"]
)
def test_a_value_in_the_path_of_a_run_is_refused(project: Path, cli: Cli, word: str) -> None:
    (project / "conf" / "experiment").mkdir()
    experiment = "# @package _global_\nname: ${oc.env:LW_TEST_TOKEN}\n"
    (project / "conf" / "experiment" / "named.yaml").write_text(experiment)
    answer = cli(*WORDS, *ALLOW, word)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "contains ${oc.env:NAME}, whose value would be visible in the path of the run" in answer.err
    check(answer, project / "outputs")


@pytest.mark.parametrize("name", ["", "A B", "A-B", "1A", "A=hunter2", "é"])
def test_other_values_of_the_flag_are_refused(cli: Cli, name: str) -> None:
    answer = cli("--allow-env", name)
    shown = name.partition("=")[0]
    expected = f"--allow-env='{shown}': expected the name of an environment variable, without its value.\n"
    assert answer == Answer(2, "", expected)


def test_a_configuration_cannot_allow_a_variable(project: Path, cli: Cli) -> None:
    (project / "pyproject.toml").write_text("[tool.loopwright]\nallow_env = ['LW_TEST_TOKEN']\n")
    assert "tool.loopwright.allow_env: no such key" in cli(*WORDS).err


def test_a_restarted_run_gets_the_flags() -> None:
    line = read_command_line(["--trust", "a", "--allow-env", "B", "--allow-env=C", "--allow-env", "B", "seed=1"])
    assert line.permissions == ["--trust=a", "--allow-env=B", "--allow-env=C"]
    assert read_command_line(words_on("resume", Path("x"), line.permissions)).permissions == line.permissions
