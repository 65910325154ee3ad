"""The overrides of a sweep are divided into factors, seeds and fixed overrides."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright.errors import SettingError
from loopwright.experiment.compose.overrides import parse_overrides
from loopwright.experiment.sweep.factors import (
    key_of,
    plain_value,
    read_swept_line,
    spelled_values,
    without_globs,
    word_of,
)
from loopwright.experiment.sweep.index import Factor

KEYS = st.lists(st.sampled_from(["model", "optimizer.lr", "+a.b", "++c", "model@x.y", "seed"]), unique=True, max_size=3)
VALUES = st.one_of(
    st.integers(-9, 9).map(str),
    st.floats(-9, 9, allow_nan=False).map(repr),
    st.sampled_from(["cnn", "null", "true", "1e-3", "[1,2]", "{a: 1}", "'a b'", '"1"', "a_b", "1.0"]),
)


@settings(max_examples=8)
@given(keys=KEYS, data=st.data())
def test_the_grid_has_each_combination_once_and_the_last_key_changes_fastest(
    keys: list[str], data: st.DataObject
) -> None:
    seeds = st.integers(0, 99).map(str)
    lists = {
        key: data.draw(st.lists(seeds if key == "seed" else VALUES, min_size=2, max_size=3, unique=True))
        for key in keys
    }
    swept = read_swept_line([f"{key}={','.join(values)}" for key, values in lists.items()], {})
    jobs = swept.grid(None)
    assert len(jobs) == len(list(itertools.product(*lists.values())))
    texts = {key: spelled_values(parse_overrides([f"{key}={','.join(values)}"])[0]) for key, values in lists.items()}
    assert jobs == [
        [f"{key}={value}" for key, value in zip(lists, chosen, strict=True)]
        for chosen in itertools.product(*texts.values())
    ]
    assert [factor.key for factor in swept.factors] == [key.lstrip("+") for key in keys if key != "seed"]
    assert swept.seeds == tuple(map(int, lists.get("seed", ())))
    for words in jobs:
        values = swept.values_of(words)
        assert list(values) == [factor.key for factor in swept.factors]
        assert words in swept.jobs_of(values)


@given(text=VALUES)
def test_the_word_of_a_value_has_its_own_spelling_and_type(text: str) -> None:
    (override,) = parse_overrides([f"+key={text},other"])
    value = plain_value(parse_overrides([f"key={text}"])[0])
    word = word_of("key", value, override)
    assert word.startswith("+key=")
    again = plain_value(parse_overrides([word])[0])
    assert (again, type(again)) == (value, type(value))
    if not isinstance(value, str | dict):
        assert plain_value(parse_overrides([word_of("key", value)])[0]) == value


def test_typed_overrides_replace_entries_of_the_space() -> None:
    swept = read_swept_line(["optimizer.lr=1,2", "seed=3"], {"optimizer.lr": "5,6", "model": "cnn,mlp"})
    assert swept.factors == (Factor(key="optimizer.lr", values=(1, 2)), Factor(key="model", values=("cnn", "mlp")))
    assert swept.overrides == ("optimizer.lr=1,2", "seed=3", "model=cnn,mlp")
    assert (swept.seeds, len(swept.grid(None))) == ((), 4)


def test_every_job_has_the_settings_of_hydra() -> None:
    swept = read_swept_line(["hydra.verbose=true", "a=1,2"], {})
    assert swept.hydra == ("hydra.verbose=true",)
    assert swept.grid(None) == [["hydra.verbose=true", "a=1"], ["hydra.verbose=true", "a=2"]]
    assert swept.jobs_of({"a": 2}) == [["hydra.verbose=true", "a=2"]]


def test_intervals_have_bounds_and_scales() -> None:
    words = ["a=interval(1,4)", "b=tag(log,interval(1e-4,1e-1))", "c=int(interval(1,4))", "d=interval(0.5,4)"]
    found = [(each.low, each.high, each.is_log, each.is_int) for each in read_swept_line(words, {}).intervals]
    assert found[1] == (1e-4, 1e-1, True, False)
    assert found[3] == (0.5, 4, False, False)
    assert [each[:2] for each in (found[0], found[2])] == [(1, 4), (1, 4)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a=interval(2,1)"], "a=interval(2,1): expected two numbers, the smaller one first."),
        (["a=tag(log,interval(0,1))"], "the smaller one first, both above 0."),
        (["seed=1,-2"], "seed='1,-2': expected whole numbers, 0 or more, such as seed=0,1,2."),
        (["seed=interval(1,2)"], "expected whole numbers, 0 or more"),
        (["seed=1,true"], "expected whole numbers, 0 or more"),
        (["hydra.verbose=true,false"], "hydra.verbose=true,false: Hydra's own settings cannot be swept."),
        (["a=1,2", "a=3"], "a=3: a is given twice; give it once."),
        (["a=1,"], "a=1,: cannot be read"),
    ],
)
def test_wrong_overrides_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_swept_line(words, {})
    assert message in str(caught.value)


def test_globs_are_replaced_by_what_they_selected() -> None:
    factors = [Factor(key="model", values=("cnn", "mlp")), Factor(key="a", values=(1, 2))]
    words = ["model=glob(*)", "a=1,2", "b=3"]
    assert without_globs(words, factors) == ["model=cnn,mlp", "a=1,2", "b=3"]


@pytest.mark.parametrize(
    ("word", "key"), [("model=cnn", "model"), ("+a.b=1", "a.b"), ("++a=1", "a"), ("~a", "a"), ("m@p.q=1", "m@p.q")]
)
def test_the_key_of_an_override_has_no_sign(word: str, key: str) -> None:
    assert key_of(parse_overrides([word])[0]) == key


def test_a_range_is_a_list_of_values() -> None:
    values: Any = read_swept_line(["a=range(1,4)", "b=choice(x,y)"], {}).factors
    assert [factor.values for factor in values] == [(1, 2, 3), ("x", "y")]
