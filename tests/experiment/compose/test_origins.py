"""Origins of values: changing a value where its origin says changes it in the composed configuration."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from loopwright.errors import SettingError
from loopwright.experiment.compose.composer import VERSION_BASE, Composer, composing
from loopwright.experiment.compose.origins import Names, Origins, names_in, read_origins
from loopwright.shipped import conf_dir

pytestmark = pytest.mark.hydra

EXPERIMENTS = sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))
VARIANTS = [
    [],
    ["model=cnn", "scheduler=plateau", "callbacks=[default,ema,metrics]", "loggers=[progress,csv]", "device=gpu"],
    ["debug=overfit", "optimizer=sgd", "hparams_search=tpe", "precision=bf16", "loop.max_steps=7", "+optimizer.x=y"],
    ["~scheduler", "model.dropout=0.5", "++seed=3", "optimizer.betas=[0.1,0.2]", "data=csv", "loop=validation"],
]
CASES = [[f"experiment={name}"] for name in EXPERIMENTS] + VARIANTS


@pytest.fixture
def composer() -> Iterator[Composer]:
    with composing(None) as made:
        yield made


def leaves_of(node: Any, path: Names = ()) -> Iterator[tuple[Names, Any]]:
    if isinstance(node, dict) and node:
        for key, each in node.items():
            yield from leaves_of(each, (*path, str(key)))
    else:
        yield path, node


def composed_leaves(config: Any) -> dict[Names, Any]:
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return dict(leaves_of({key: value for key, value in plain.items() if key != "hydra"}))


def last(origins: Origins) -> dict[Names, str]:
    return {path: writers[-1].place for path, writers in origins.leaves()}


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_the_merged_values_are_those_that_hydra_composes(overrides: list[str], composer: Composer) -> None:
    expected = composed_leaves(composer.compose_whole(overrides, allows_sweep=True))
    found = {path: yaml.safe_load(writers[-1].text) for path, writers in read_origins(composer, overrides).leaves()}
    assert found == expected


def changed_line(line: str, key: str, value: str) -> str:
    """Replace the value of a key in a line of a block mapping or of a flow mapping."""
    name = re.escape(key)
    block = re.sub(rf"^(\s*{name}:\s*).*?(\s+#.*)?$", rf"\g<1>{value}\g<2>", line)
    changed = block if block != line else re.sub(rf"(\b{name}: )[^,}}]+", rf"\g<1>{value}", line)
    assert changed != line, (line, key)
    return changed


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_changing_each_value_at_its_origin_changes_it(overrides: list[str], tmp_path: Path) -> None:
    """Every value gets its own new value, so a value that is set elsewhere is also found."""
    with composing(None) as composer:
        origins, composed = (
            read_origins(composer, overrides),
            composed_leaves(composer.compose_whole(overrides, allows_sweep=True)),
        )
    copy = Path(shutil.copytree(conf_dir(), tmp_path / "conf"))
    words, expected = list(overrides), {}
    for number, (path, writers) in enumerate(origins.leaves()):
        origin, new = writers[-1], f"changed_{number}"
        expected[path] = new
        if origin.is_override:
            index = words.index(origin.place)
            words[index] = f"{words[index].partition('=')[0]}={new}"
            continue
        file, _, number_of_line = origin.place.rpartition(":")
        target, index = copy / file.removeprefix("conf/"), int(number_of_line) - 1
        lines = target.read_text().splitlines()
        lines[index] = changed_line(lines[index], path[-1], new)
        target.write_text("\n".join(lines) + "\n")
    with initialize_config_dir(str(copy), **VERSION_BASE):
        changed = composed_leaves(compose("config", overrides=words, return_hydra_config=True))
    assert changed == expected and set(expected) == set(composed)


def test_earlier_writers_are_kept_in_their_order(composer: Composer) -> None:
    origins = read_origins(composer, ["experiment=gpt_stdlib_eval", "loop.max_steps=3"])
    assert [(writer.text, writer.place) for writer in origins.writers(("loop", "max_steps"))] == [
        ("2000", "conf/loop/training.yaml:2"),
        ("4000", "conf/experiment/gpt_stdlib.yaml:30"),
        ("2000", "conf/experiment/gpt_stdlib_eval.yaml:15"),
        ("3", "loop.max_steps=3"),
    ]


LEAVES = {"seed": 1, "loop.max_steps": 8, "optimizer.lr": 0.5, "data.batch_size": 3, "checkpoint.keep_last": None}


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(typed=st.dictionaries(st.sampled_from(sorted(LEAVES)), st.sampled_from([7, "null", "word"])))
def test_only_typed_values_have_an_override_as_origin(typed: dict[str, object]) -> None:
    with composing(None) as composer:
        plain, origins = read_origins(composer, []), read_origins(composer, [f"{key}={typed[key]}" for key in typed])
    for key in LEAVES:
        path, expected = names_in(key), list(plain.writers(names_in(key)))
        found = list(origins.writers(path))
        assert [writer.place for writer in found[len(expected) :]] == ([f"{key}={typed[key]}"] if key in typed else [])
        assert found[: len(expected)] == expected
    assert set(last(plain)) == set(last(origins))


USER_FILE = """\
# @package _global_
defaults:
  - override /scheduler: warmup_cosine
loop:
  eval_steps: null
  max_steps: ???        # kept: a value that must be given replaces no value
  steps_per_epoch: 50
data:
  _target_: mine.Data
  shape: &shape {height: 2, width: "${.height}"}
  again: *shape
  copied: ${data.shape}
  empty: {}
precision: null
callbacks:
  learning_rate: null
  stop_on_non_finite: {}
scheduler:
  <<: {warmup_steps: 5}
"""


def write_user_file(directory: Path, text: str = USER_FILE) -> Path:
    (directory / "mine" / "experiment").mkdir(parents=True)
    (directory / "mine" / "experiment" / "odd.yaml").write_text(text)
    return directory / "mine"


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["data={shape: {height: 5}}", "+data.added=1", "~loop.steps_per_epoch", "+loop.new={a: {b: 2}}"],
        ["++precision={dtype: bf16}", "optimizer.betas.0=0.5", "callbacks={learning_rate: {}}"],
    ],
    ids=" ".join,
)
def test_a_users_file_is_merged_as_hydra_merges_it(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_user_file(tmp_path)
    with composing("mine") as composer:
        overrides = ["experiment=odd", *more]
        expected = composed_leaves(composer.compose_whole(overrides, allows_sweep=True))
        origins = read_origins(composer, overrides)
    found = {path: yaml.safe_load(writers[-1].text) for path, writers in origins.leaves()}
    if "optimizer.betas.0=0.5" in more:
        assert found.pop(("optimizer", "betas")) == 0.5 and expected.pop(("optimizer", "betas")) == [0.5, 0.999]
    assert found == expected


def test_files_of_the_user_are_named_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_user_file(tmp_path)
    with composing(str(tmp_path / "mine")) as composer:
        origins = read_origins(composer, ["experiment=odd"])
        assert origins.writers(("loop", "steps_per_epoch"))[-1].place == "mine/experiment/odd.yaml:7"
        assert origins.writers(("loop", "max_steps"))[-1].place == "loopwright:conf/loop/training.yaml:2"
        assert origins.writers(("data", "copied", "height"))[-1].text == "${data.shape}"
        assert origins.writers(("data", "shape")) == ()
    monkeypatch.chdir("/")
    with composing(str(tmp_path / "mine")) as composer:
        place = read_origins(composer, ["experiment=odd"]).writers(("precision",))[-1].place
    assert place == f"{str(tmp_path).removeprefix('/')}/mine/experiment/odd.yaml:14"


def test_a_file_that_was_changed_after_the_composition_is_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = write_user_file(tmp_path)
    with composing("mine") as composer:
        composer.compose_whole(["experiment=odd"])
        (directory / "experiment" / "odd.yaml").write_text("a: !!python/object:os.system {}\n")
        with pytest.raises(SettingError, match=r"odd\.yaml:1: tag"):
            read_origins(composer, ["experiment=odd"])


def test_only_the_root_file_sets_hydras_own_values() -> None:
    """`Composer.may_change_hydra` relies on it."""
    for file in conf_dir().rglob("*.yaml"):
        content = yaml.safe_load(file.read_text())
        package = re.match(r"#\s*@package\s+(\S+)", file.read_text())
        assert package is None or package[1] == "_global_"
        if file != conf_dir() / "config.yaml" and isinstance(content, dict):
            assert "hydra" not in content
            assert not any("hydra" in str(line) for line in content.get("defaults", []))


@pytest.mark.parametrize(
    ("word", "may_change"),
    [
        ("loop.max_steps=5", False),
        ("model=cnn", False),
        ("seed='hydra.x=1'", False),
        ("hydra.run.dir=x", True),
        ("+hydra.callbacks.a=1", True),
        ("hydra/launcher=basic", True),
        ("+model@hydra.callbacks=mlp", True),
        ("~hydra.job", True),
        ("model@hydra=mlp", True),
    ],
)
def test_an_override_that_may_change_hydras_own_values_is_recognised(
    word: str, may_change: bool, tmp_path: Path
) -> None:
    with composing(None) as composer:
        assert composer.may_change_hydra(["seed=1", word]) is may_change
    with composing(str(tmp_path)) as with_own_files:
        assert with_own_files.may_change_hydra([word])


def test_a_defaults_list_of_loaded_files_is_the_same(tmp_path: Path) -> None:
    """The values of loaded files are changed by overrides. Neither a defaults list nor a composition sees this."""
    overrides = ["experiment=vit_digits", "model=cnn", "name=other"]
    with composing(None) as composer:
        fresh = composer.defaults_list(overrides)
    with composing(None) as composer:
        composer.compose_whole(overrides, allows_sweep=True)
        again, later = composer.defaults_list(overrides), composed_leaves(composer.compose_whole([]))
    shown = [[(each.config_path, each.package) for each in found.defaults] for found in (fresh, again)]
    assert shown[0] == shown[1]
    assert later[("name",)] == "digits"
