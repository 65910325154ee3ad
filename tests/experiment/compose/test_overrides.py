"""Overrides: splitting a sweep into jobs, and quoting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from loopwright.errors import SettingError
from loopwright.experiment.compose.hydra_files import write_hydra_files
from loopwright.experiment.compose.overrides import override_text, quoted, split_jobs

pytestmark = pytest.mark.hydra


def test_jobs_are_the_product_of_the_values_with_hydras_settings_first() -> None:
    jobs = split_jobs(["a=1,2", "b=choice(x,y)", "c='1,2'", "hydra.sweep.dir=out"])
    assert jobs == [["hydra.sweep.dir=out", f"a={a}", f"b={b}", "c='1,2'"] for a in (1, 2) for b in ("x", "y")]


def test_a_sweep_without_values_is_one_job() -> None:
    assert split_jobs(["a=1"]) == [["a=1"]]


@pytest.mark.parametrize("word", ["a=interval(0,1)", "hydra.verbose=true,false", "a=range(0,0)", "a=[1"])
def test_sweeps_that_cannot_be_split_are_refused(word: str) -> None:
    with pytest.raises(SettingError):
        split_jobs([word])


# Strings of characters that mean something to a shell, to Hydra's grammar or to OmegaConf. OmegaConf cannot represent
# the string ???, which always stands for a missing value.
ODD_CHARACTERS = st.sampled_from("ab1 \\${}'\",[]()=~:@|?*+-;&<>#%!^`./ é☃\u00a0\n\t")
ODD_TEXT = st.text(ODD_CHARACTERS, min_size=1, max_size=12).filter(lambda text: text != "???")


@pytest.mark.parametrize("make", [override_text, lambda key, text: f"{key}={quoted(text)}"])
@given(
    text=ODD_TEXT | st.sampled_from(["1", "null", "true", "1e3", "a,b", "[a]", "choice(a,b)", "${seed}", "\\${seed}"])
)
def test_a_string_is_composed_as_it_was(make: Callable[[str, str], str], text: str) -> None:
    override = OverridesParser.create().parse_override(make("key", text))
    config = OmegaConf.create({"key": None, "seed": 7})
    OmegaConf.update(config, "key", override.value())
    assert not override.is_sweep_override()
    assert config.key == text


def test_a_run_directory_is_recorded_for_hydra_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "\\${seed}"
    source = OmegaConf.create({"seed": 7, "hydra": {"run": {}, "job": {}, "runtime": {}, "overrides": {"task": []}}})
    write_hydra_files(directory, source)
    recorded = OmegaConf.load(directory / ".hydra" / "hydra.yaml")
    assert (recorded.hydra.run.dir, recorded.hydra.runtime.output_dir) == (str(directory), str(directory))


def test_plain_strings_are_not_quoted() -> None:
    assert override_text("a.b", "runs/one two/step_7") == "a.b=runs/one two/step_7"
    assert override_text("a.b", "x=y") == "a.b='x=y'"
