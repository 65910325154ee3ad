"""The name of a run: typed, or the name in the experiment's file with the options of ``data`` and ``model`` typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from command import SMALL, Answer, run_dirs

Cli = Callable[..., Answer]

ONE_STEP = ("loop.max_steps=1", "loggers=none", "checkpoint=none")


@pytest.mark.hydra
@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "digits"),
        (("model=cnn",), "digits-cnn"),
        (("data=synthetic",), "digits-synthetic"),
        (("model=cnn", "data=synthetic"), "digits-synthetic-cnn"),
        (("model='cnn'",), "digits-cnn"),
        (("data=digits",), "digits"),
        (("experiment=vit_digits", "seed=3"), "vit_digits"),
        (("experiment=vit_digits", "model=cnn"), "vit_digits-cnn"),
        (("model=cnn", "name=mine"), "mine"),
        (("experiment=vit_digits", "scheduler=none", "model.width=32"), "vit_digits"),
    ],
)
def test_typed_options_of_data_and_model_are_in_the_name(cli: Cli, words: tuple[str, ...], name: str) -> None:
    answer = cli("config", *words)
    assert answer.code == 0, answer
    assert yaml.safe_load(answer.out)["name"] == name


def test_the_name_is_recorded_and_names_the_folder(cli: Cli, tmp_path: Path) -> None:
    assert cli("model=cnn", *ONE_STEP).code == 0
    (run_dir,) = run_dirs(tmp_path)
    assert run_dir.parent.name == "digits-cnn"
    for file in ("config.yaml", ".hydra/config.yaml"):
        assert yaml.safe_load((run_dir / file).read_text())["name"] == "digits-cnn"
    assert cli("reproduce", "last").code in (0, 1)
    assert {path.parent.name for path in run_dirs(tmp_path)} == {"digits-cnn"}


@pytest.mark.slow
def test_a_swept_group_adds_nothing(cli: Cli, tmp_path: Path) -> None:
    words = [word for word in SMALL if not word.startswith("model.")]
    assert cli("-m", *words, "model=mlp,cnn").code == 0
    jobs = [yaml.safe_load(path.read_text())["name"] for path in tmp_path.glob("outputs/*/*_sweep/*/config.yaml")]
    assert jobs == ["digits-synthetic", "digits-synthetic"]


def test_the_folder_of_an_option_is_written_with_a_hyphen(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "model" / "small"
    folder.mkdir(parents=True)
    (folder / "one.yaml").write_text("_target_: loopwright.models.MLP\nhidden: [4]\n")
    answer = cli("config", "--config-dir=conf", "model=small/one")
    assert answer.code == 0, answer
    assert yaml.safe_load(answer.out)["name"] == "digits-small-one"


def test_an_experiment_without_a_name_gives_its_own(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text("# @package _global_\nseed: 3\n")
    (folder / "named.yaml").write_text("# @package _global_\nname: mine\n")
    for words, name in (
        (["experiment=own"], "own"),
        (["experiment=own", "model=cnn"], "own-cnn"),
        (["experiment=named"], "mine"),
    ):
        answer = cli("config", "--config-dir=conf", *words)
        assert yaml.safe_load(answer.out)["name"] == name
