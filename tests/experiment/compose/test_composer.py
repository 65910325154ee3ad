"""Composition of configurations, and its errors: one line each, with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

import special
from loopwright.errors import SettingError
from loopwright.experiment.compose.composer import composing

pytestmark = pytest.mark.hydra


def compose_error(*overrides: str, config_dir: Path | None = None) -> str:
    with composing(None if config_dir is None else str(config_dir)) as composer:
        with pytest.raises(SettingError) as caught:
            composer.compose(overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_default_configuration() -> None:
    with composing(None) as composer:
        composed = composer.compose([])
    assert composed.config["loop"]["_target_"] == "loopwright.loop.TrainingLoop"
    assert composed.config["model"]["_target_"] == "loopwright.models.MLP"
    assert composed.config["name"] == "digits"
    assert "hydra" not in composed.config
    assert composed.directory is None


def test_the_command_line_overrides_the_experiment() -> None:
    with composing(None) as composer:
        config = composer.compose(["experiment=digits", "model=cnn", "loop=validation", "name=other"]).config
    assert config["model"]["_target_"] == "loopwright.models.CNN"
    assert config["loop"]["_target_"] == "loopwright.loop.ValidationLoop"
    assert config["name"] == "other"


def test_interpolations_in_a_typed_directory_are_resolved_once() -> None:
    with composing(None) as composer:
        composed = composer.compose(["hydra.run.dir='a [b], ${name}'"])
    assert composed.directory == "a [b], digits"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("loop.max_stepz=5", "loop.max_stepz=5: no such key. Did you mean loop.max_steps?"),
        ("max_steps=5", "max_steps=5: no such key. Did you mean loop.max_steps?"),
        ("modl=cnn", "modl=cnn: no such key. Did you mean model?"),
        ("lop.max_steps=5", "lop.max_steps=5: no such key. Did you mean loop.max_steps?"),
        ("data=digit", "data=digit: no such option. Available: csv, digits, "),
        ("model=", "model=: no such option. Available: cnn, "),
        ("model=null", "model=null: expected an option; use ~model to remove model."),
        ("+model=cnn", "+model=cnn: an option of model is chosen already"),
        ("model@other=cnn", "model@other=cnn: packages cannot be chosen; use model=OPTION."),
        ("+seed=4", "+seed=4: seed exists already; write it without the plus."),
        ("~sed", "~sed: no such key to remove. Did you mean seed?"),
        ("seed=1,2", "seed=1,2: expected one value; use -m for a sweep, brackets for a list or quotes for a string."),
        ("seed=[1", "seed=[1: cannot be read ("),
        ("seed=${nothing}", "seed: Interpolation key 'nothing' not found"),
        ("seed=???", "seed=???: a value must be given."),
        ("hydra/launcher=fast", "hydra/launcher=fast: no such option. Available: basic."),
        (
            "hydra/job_logging=colour",
            "hydra/job_logging=colour: Hydra's own settings are fixed; remove this override.",
        ),
        ("hydra.job.nam=x", "hydra.job.nam=x: no such key. Did you mean hydra.job.name?"),
    ],
)
def test_an_error_is_one_line(override: str, line: str) -> None:
    assert compose_error(override).startswith(line)


def test_all_errors_are_in_one_line() -> None:
    line = compose_error("model=x", "loop.max_stepz=3", "data=digts")
    assert "model=x: no such option." in line
    assert "Did you mean digits?" in line
    assert "Did you mean loop.max_steps?" in line


def test_a_key_given_twice_is_refused() -> None:
    assert compose_error("seed=1", "seed=2") == "seed=2: seed is given twice; give it once."


def test_a_config_directory_adds_options(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: my_models.Mine\nwidth: 3\n")
    with composing(str(tmp_path)) as composer:
        assert composer.compose(["model=mine"]).config["model"] == {"_target_": "my_models.Mine", "width": 3}
        assert composer.compose([]).config["model"]["_target_"] == "loopwright.models.MLP"
    assert compose_error("model=min", config_dir=tmp_path).endswith(". Did you mean mine?")


def test_a_malformed_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "model" / "mine.yaml"
    file.write_text("width: 3\nheight: [1\n")
    assert compose_error("model=mine", config_dir=tmp_path).startswith(f"{file}:3: ")
    with composing(str(tmp_path)) as composer:  # a file that was not chosen stops no command
        assert composer.compose([]).config["name"] == "digits"


def test_a_missing_directory_is_named() -> None:
    with pytest.raises(SettingError, match=r"--config-dir='nowhere': no such directory\."), composing("nowhere"):
        pass


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "holes"])
def test_a_configuration_file_that_never_ends_is_not_opened(kind: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "model" / "mine.yaml"
    special.make(file, kind)
    problem = "not a regular file; folders, links, pipes and devices"
    if kind == "holes":
        problem = "expected at most 1,000,000 bytes"
    elif kind == "device":
        file, problem = file.with_suffix(""), f"leads out of {tmp_path} through a link"
    with pytest.raises(SettingError) as caught:
        with composing(str(tmp_path)) as composer:
            composer.compose(["model=mine"])
    assert str(caught.value).startswith(f"{file}: {problem}")


@pytest.mark.timeout(30)
def test_a_configuration_file_may_be_a_link_to_another_file_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "conf" / "seed").mkdir(parents=True)
    (tmp_path / "conf" / "elsewhere.yaml").write_text("a: 1\n")
    (tmp_path / "conf" / "seed" / "mine.yaml").symlink_to(tmp_path / "conf" / "elsewhere.yaml")
    with composing(str(tmp_path / "conf")) as composer:
        assert composer.compose(["+seed@extra=mine"]).config["extra"] == {"a": 1}
