"""Hydra loads no configuration file that was not checked, and a bounded number of files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from command import run_in
from limited import limited
from loopwright.errors import SettingError
from loopwright.experiment.compose.checked_files import MAX_LOADS
from loopwright.experiment.compose.composer import composing

pytestmark = pytest.mark.hydra

BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "\n".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 8)
)


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")
    return file


def linked_folder(conf: Path, outside: Path) -> str:
    (conf / "model").mkdir(parents=True)
    (conf / "model" / "theirs").symlink_to(outside)
    return "[/model/theirs/bomb@x]"


def linked_file(conf: Path, outside: Path) -> str:
    (conf / "model").mkdir(parents=True)
    (conf / "model" / "theirs.yaml").symlink_to(outside / "bomb.yaml")
    return "[/model/theirs@x]"


def linked_folder_inside(conf: Path, outside: Path) -> str:
    write(conf / "model" / "theirs" / "bomb.yaml", BOMB)
    (conf / "data").mkdir()
    (conf / "data" / "again").symlink_to(conf / "model")
    return "[/data/again/theirs/bomb@x]"


def parent_folder(conf: Path, outside: Path) -> str:
    return "[/../outside/bomb@x]"


def parent_folder_as_option(conf: Path, outside: Path) -> str:
    return "[/model@x: ../../outside/bomb]"


def parent_of_shipped_folder(conf: Path, outside: Path) -> str:
    steps = "/".join([".."] * 40)
    return f"[/model@x: {steps}{outside}/bomb]"


def absolute_path(conf: Path, outside: Path) -> str:
    return f"[/{outside}/bomb@x]"


ATTACKS = [
    linked_folder,
    linked_file,
    linked_folder_inside,
    parent_folder,
    parent_folder_as_option,
    parent_of_shipped_folder,
    absolute_path,
]


@pytest.mark.parametrize("words", [["config"], ["--cfg=job"], ["--info=defaults"]], ids="".join)
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_path_in_a_defaults_list_leads_past_the_check(
    attack: Callable[[Path, Path], str], words: list[str], tmp_path: Path
) -> None:
    write(tmp_path / "outside" / "bomb.yaml", BOMB)
    conf = tmp_path / "conf"
    write(conf / "experiment" / "x.yaml", f"# @package _global_\ndefaults: {attack(conf, tmp_path / 'outside')}")
    answer = limited(run_in, tmp_path, *words, "--config-dir=conf", "experiment=x")
    assert answer.code == 2, answer
    assert answer.out == ""
    assert answer.err.count("\n") == 1
    # Hydra 1.4 refuses ".." itself.
    assert any(words in answer.err for words in ("leads", "expected at most 10,000 values", "Parent traversal"))


def test_a_value_outside_the_directory_is_not_shown(tmp_path: Path) -> None:
    write(tmp_path / "secret.yaml", "password: open sesame")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "x.yaml").symlink_to(tmp_path / "secret.yaml")
    with composing(str(tmp_path / "conf")) as composer, pytest.raises(SettingError) as caught:
        composer.compose(["model=x"])
    file = tmp_path / "secret.yaml"
    root = tmp_path / "conf"
    said = f"{root}/model/x: leads out of {root} through a link; copy the file {file} into this directory."
    assert str(caught.value) == said


def doubled(conf: Path) -> None:
    for number in range(30):
        write(conf / "experiment" / f"x{number}.yaml", f"defaults: [x{number + 1}@a, x{number + 1}@b]")
    write(conf / "experiment" / "x30.yaml", "z: 1")


def named_by_itself(conf: Path) -> None:
    write(conf / "experiment" / "x0.yaml", "defaults: [x0@a]")


def in_one_list(conf: Path) -> None:
    listed = ", ".join(f"y@a{number}" for number in range(9_000))
    write(conf / "experiment" / "x0.yaml", f"defaults: [{listed}]")
    write(conf / "experiment" / "y.yaml", "text: " + "x" * 900_000)


@pytest.mark.slow
@pytest.mark.parametrize("make", [doubled, named_by_itself, in_one_list])
def test_defaults_lists_load_a_bounded_number_of_files(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "conf")
    answer = limited(run_in, tmp_path, "config", "--config-dir=conf", "experiment=x0")
    assert answer.code == 2, answer
    assert answer.err.endswith(f"expected defaults lists that load at most {MAX_LOADS:,} files in all.\n")
    assert answer.err.count("\n") == 1


def test_links_within_the_directory_and_many_files_are_accepted(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    write(conf / "model" / "mine.yaml", "_target_: my_models.Mine")
    (conf / "model" / "alias.yaml").symlink_to(conf / "model" / "mine.yaml")
    listed = ", ".join(f"/model@a{number}: alias" for number in range(100))
    write(conf / "experiment" / "x.yaml", f"# @package _global_\ndefaults: [{listed}]")
    os.symlink(conf, tmp_path / "link")
    start = time.process_time()
    with composing(str(tmp_path / "link")) as composer:
        assert composer.compose(["experiment=x"]).config["a99"] == {"_target_": "my_models.Mine"}
    assert time.process_time() - start < 10
