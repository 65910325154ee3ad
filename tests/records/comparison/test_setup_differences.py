"""`setup_differences` shows each value that differs, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwright.records.comparison.run_setup import RunSetup
from loopwright.records.comparison.setup_differences import (
    NOT_SET,
    Difference,
    has_equal_values,
    missing_sections,
    setup_differences,
)

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["", "1", "null", "a"])
VALUES = SCALARS | st.lists(SCALARS, max_size=2)
CONFIGS = st.dictionaries(st.sampled_from(["model", "model.hidden", "loop.max_steps", "seed"]), VALUES)


def setup(
    configuration: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    diff: tuple[int, str] | None = None,
    data: Mapping[str, Any] | None = None,
) -> RunSetup:
    return RunSetup(configuration=configuration, environment=environment, diff=diff, data=data, problems=())


@given(configs=st.lists(CONFIGS, min_size=1, max_size=4))
def test_exactly_the_settings_that_differ_are_shown(configs: list[dict[str, Any]]) -> None:
    found = {each.name: each for each in setup_differences([setup(config) for config in configs])}
    for name in {name for config in configs for name in config}:
        values = [config.get(name, NOT_SET) for config in configs]
        assert (name in found) == (len({repr(value) for value in values}) > 1)
        if name in found:
            assert repr(found[name].values) == repr(tuple(values)) and found[name].section == "configuration"
    assert setup_differences([setup(configs[0])] * 3) == []


@pytest.mark.parametrize(
    "pair", [(1, 1.0), (1, True), (0, False), (None, "null"), ("1", 1), (None, NOT_SET), ([1], [1.0])]
)
def test_values_of_different_types_differ(pair: tuple[Any, Any]) -> None:
    assert not has_equal_values(pair)
    assert has_equal_values(pair[:1] * 2)
    assert has_equal_values([math.nan, float("nan")])


def test_all_parts_of_a_run_are_compared() -> None:
    here: dict[str, Any] = {
        "python": "3.11",
        "packages": {"numpy": "2.0", "rich": "14"},
        "hardware": {"cpu_capability": "AVX2", "num_cpus": 2},
        "variables": {"RANK": "0"},
        "git": {"commit": "a" * 40, "is_dirty": True},
        "source": {"loopwright": "0" * 64},
    }
    there = {
        **here,
        "python": "3.12",
        "packages": {"numpy": "2.1", "torch": "2.13"},
        "variables": {"RANK": "1", "OMP_NUM_THREADS": "2"},
        "git": {"commit": "b" * 40, "is_dirty": True},
    }
    runs = [setup({"seed": 0}, here, (3, "c" * 64), {"train": "d"}), setup({"seed": 1}, there, None, {"train": "e"})]
    assert setup_differences(runs) == [
        Difference("configuration", "seed", (0, 1)),
        Difference("environment", "python", ("3.11", "3.12")),
        Difference("environment", "variables.OMP_NUM_THREADS", (NOT_SET, "2")),
        Difference("packages", "numpy", ("2.0", "2.1")),
        Difference("packages", "rich", ("14", NOT_SET)),
        Difference("packages", "torch", (NOT_SET, "2.13")),
        Difference("source", "git.commit", ("a" * 40, "b" * 40)),
        Difference("source", "git.diff", ({"num_lines": 3, "sha256": "c" * 64}, NOT_SET)),
        Difference("data", "train", ("d", "e")),
    ]


def test_a_run_without_a_record_is_not_compared() -> None:
    runs = [setup({"seed": 0}, {"python": "3.11"}), setup(None, {"python": "3.12"}), setup({"seed": 0})]
    (found,) = setup_differences(runs)
    assert found == Difference("environment", "python", ("3.11", "3.12", NOT_SET))
    assert missing_sections(runs) == [("configuration", [1]), ("environment", [2]), ("data", [0, 1, 2])]


def test_settings_below_a_factor_are_left_out() -> None:
    runs = [setup({"model": "mlp", "model.hidden": 1, "models": 1}), setup({"model": "cnn", "models": 2})]
    assert [each.name for each in setup_differences(runs, ["model", "seed"])] == ["models"]


def test_the_settings_of_a_group_stay_together() -> None:
    runs = [setup({"model.a": 1, "seed": 1}), setup({"seed": 2, "model.b": 1, "model.a": 2})]
    assert [each.name for each in setup_differences(runs)] == ["model.a", "model.b", "seed"]


def test_values_of_any_json_type_are_compared() -> None:
    values = json.loads('[{"a": [1, {"b": NaN}]}, {"a": [1, {"b": NaN}]}, {"a": [1, {"b": 2}]}, null]')
    assert has_equal_values(values[:2]) and not has_equal_values(values[1:3]) and not has_equal_values(values[2:])
