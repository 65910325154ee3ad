"""Overrides: splitting a sweep into jobs, and quoting."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from loopwright.errors import SettingError
from loopwright.experiment.compose.overrides import quoted, split_jobs, with_value

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


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_a_quoted_text_is_parsed_to_the_same_text(text: str) -> None:
    value = OverridesParser.create().parse_override(f"key={quoted(text)}").value()
    assert str(value).replace("\\${", "${") == text


def test_a_value_replaces_the_earlier_value_of_its_key() -> None:
    assert with_value(["a=1", "++b.c=2"], "b.c", "x y") == ["a=1", "b.c='x y'"]
