"""Tests of `group_parameters`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from loopwright.optim import group_parameters

MODEL = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
NAMES = [name for name, _ in MODEL.named_parameters()]


def grouped(**settings: Any) -> list[tuple[list[str], float, float]]:
    names = {id(parameter): name for name, parameter in MODEL.named_parameters()}
    groups = group_parameters(MODEL.named_parameters(), 0.5, 0.1, **settings)
    return [([names[id(p)] for p in group["params"]], group["lr"], group["weight_decay"]) for group in groups]


def test_without_patterns_all_parameters_are_in_one_group() -> None:
    assert grouped() == [(NAMES, 0.5, 0.1)]


def test_parameters_that_without_decay_matches_get_no_weight_decay() -> None:
    assert grouped(without_decay=["*.bias", "1.*"]) == [
        (["0.weight", "2.weight"], 0.5, 0.1),
        (["0.bias", "1.weight", "1.bias", "2.bias"], 0.5, 0.0),
    ]


def test_the_first_matching_pattern_sets_the_rate_factor() -> None:
    assert grouped(rate_factors={"0.*": 0.5, "*.bias": 0.1}) == [
        (["0.weight", "0.bias"], 0.25, 0.1),
        (["1.weight", "2.weight"], 0.5, 0.1),
        (["1.bias", "2.bias"], 0.05, 0.1),
    ]


@given(
    without_decay=st.lists(st.sampled_from([*NAMES, "*.bias", "[01].*", "*"])),
    rate_factors=st.dictionaries(st.sampled_from([*NAMES, "*.bias", "[01].*", "*"]), st.floats(0, 10)),
)
def test_every_parameter_is_in_exactly_one_group_in_model_order(
    without_decay: list[str], rate_factors: dict[str, float]
) -> None:
    try:
        groups = grouped(without_decay=without_decay, rate_factors=rate_factors)
    except ValueError as error:
        assume("never applies" not in str(error))
        raise
    assert sorted(name for names, _, _ in groups for name in names) == sorted(NAMES)
    assert all(names == sorted(names, key=NAMES.index) for names, _, _ in groups)
    assert [names[0] for names, _, _ in groups] == sorted((names[0] for names, _, _ in groups), key=NAMES.index)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"without_decay": ["0.wieght"]},
            "without_decay='0.wieght': matches no parameter. Parameters: 0.weight, 0.bias, 1.weight, 1.bias, 2.weight, "
            "2.bias. Did you mean 0.weight?",
        ),
        (
            {"without_decay": ["*.bais"]},
            "without_decay='*.bais': matches no parameter. Parameters: 0.weight, 0.bias, 1.weight, 1.bias, 2.weight, "
            "2.bias. Did you mean *.bias?",
        ),
        (
            {"without_decay": None},
            "without_decay=null: expected a list of name patterns, such as ['*.bias']; use [] for none.",
        ),
        (
            {"rate_factors": {3: 0.1}},
            "rate_factors={3: 0.1}: expected a mapping from name patterns to factors, or null.",
        ),
        (
            {"rate_factors": {"*.bias": 0.1, "[01].*": 2, "0.*": 0.5}},
            "rate_factors.0.*: never applies, because earlier patterns ([01].*, *.bias) match all its parameters; "
            "move this pattern above the earlier patterns.",
        ),
        ({"without_decay": "*.bias"}, "without_decay='*.bias': expected a list of name patterns"),
        ({"rate_factors": {"3.*": 1.0}}, "rate_factors='3.*': matches no parameter. Parameters: 0.weight"),
        ({"rate_factors": {"0.*": -1}}, "rate_factors.0.*=-1: expected a finite number, 0 or more."),
        ({"rate_factors": {"0.*": "x"}}, "rate_factors.0.*='x': expected a finite number, 0 or more."),
        ({"rate_factors": ["0.*"]}, "rate_factors=['0.*']: expected a mapping from name patterns to factors"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=r"expected|matches|never applies") as caught:
        grouped(**settings)
    assert str(caught.value).startswith(line)


def test_parameters_without_names_are_refused() -> None:
    with pytest.raises(TypeError, match=r"give model\.named_parameters\(\)\.$"):
        group_parameters(MODEL.parameters(), 0.5, 0.1)  # type: ignore[arg-type]
