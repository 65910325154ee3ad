"""Settings of a sweep: their overrides are separated from the overrides of the jobs, which lack these settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.compose.composer import composing
from loopwright.experiment.compose.overrides import first_options, sweep_words

pytestmark = pytest.mark.hydra


def settings_error(*overrides: str, config_dir: Path | None = None) -> str:
    with composing(None if config_dir is None else str(config_dir)) as composer:
        with pytest.raises(SettingError) as caught:
            composer.sweep_settings(overrides)
    return str(caught.value)


def test_words_are_divided() -> None:
    words = ["seed=1,2", "sweep.num_parallel=2", "model=cnn", "hparams_search=none", "sweep=default", "+sweep.a=1"]
    assert sweep_words(words) == ([words[1], words[3], words[4], words[5]], ["seed=1,2", "model=cnn"])
    assert sweep_words(["sweeper=1", "my.sweep.x=1"]) == ([], ["sweeper=1", "my.sweep.x=1"])


def test_a_setting_of_the_sweep_cannot_be_swept() -> None:
    with pytest.raises(SettingError) as caught:
        sweep_words(["sweep.num_parallel=1,2", "sweep.devices=[0,1]", "hparams_search=a,b", "seed=1,2"])
    assert str(caught.value) == (
        "sweep.num_parallel=1,2: settings of the sweep cannot be swept. "
        "Also: hparams_search=a,b: settings of the sweep cannot be swept."
    )


@pytest.mark.slow
def test_no_configuration_of_a_job_has_the_settings() -> None:
    with composing(None) as composer:
        composed = composer.compose(["seed=1"])
        assert composed.sweep["num_parallel"] == 1
        assert "sweep" not in composed.config and "sweep" not in composed.source
        for word, name in (("sweep.num_parallel=2", "sweep.num_parallel"), ("hparams_search=none", "hparams_search")):
            with pytest.raises(SettingError) as caught:
                composer.compose([word])
            assert str(caught.value) == f"{name}: has an effect only with -m."
        with pytest.raises(SettingError, match=r"seed: Interpolation key 'sweep\.seed' not found"):
            composer.compose(["seed=${sweep.seed}"])


def test_typed_settings_are_composed() -> None:
    with composing(None) as composer:
        found = composer.sweep_settings(
            ["seed=1,2", "model=wrong,cnn", "sweep.num_parallel=3", "sweep.space={optimizer.lr: '1,2'}"]
        )
    assert found["num_parallel"] == 3 and found["space"] == {"optimizer.lr": "1,2"} and found["seed"] == 0


def test_a_wrong_setting_is_refused_with_the_nearest_one() -> None:
    line = "sweep.num_paralel=3: no such key. Did you mean sweep.num_parallel?"
    assert settings_error("sweep.num_paralel=3", "seed=1,2") == line


def test_files_may_set_the_settings_of_a_sweep(tmp_path: Path) -> None:
    for name, text in (
        ("experiment/mine", "# @package _global_\nname: mine\nsweep: {num_parallel: 2, max_failures: 5}\n"),
        ("hparams_search/wide", "# @package _global_\nsweep: {num_parallel: 4}\n"),
        ("hparams_search/bad", "# @package _global_\nsweep: {num_parallel: 4}\nseed: 3\n"),
        ("hparams_search/headless", "sweep: {num_parallel: 4}\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    with composing(str(tmp_path)) as composer:
        found = composer.sweep_settings(["experiment=mine,digits", "hparams_search=wide", "sweep.max_attempts=2"])
    assert [found[name] for name in ("num_parallel", "max_failures", "max_attempts")] == [4, 5, 2]
    ending = "; the file begins with the line '# @package _global_'."
    for option, changed in (("bad", "seed"), ("headless", "hparams_search")):
        said = settings_error(f"hparams_search={option}", config_dir=tmp_path)
        assert said == f"hparams_search={option}: expected a file that sets only sweep, but it sets {changed}{ending}"


def test_the_first_option_of_a_swept_group_is_kept() -> None:
    words = ["model=cnn,mlp", "data=csv", "seed=1,2", "optimizer.lr=interval(0,1)", "scheduler=glob(*)"]
    assert first_options(words, {"model", "data", "optimizer", "scheduler"}) == ["model=cnn", "data=csv"]
