"""Effects of factors and progress of a search as data."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright.experiment.sweep.index import Factor, SweepIndex
from loopwright.experiment.sweep.pictures.effect_data import EffectPoint, Proposal, effects, search_progress
from swept import sweeps, swept

A, B = "loop.grad_accum_steps", "model"
GRID = [{A: a, B: b} for a in (4, 1) for b in ("mlp", "cnn")]


def test_an_effect_is_the_mean_over_the_groups_with_a_value() -> None:
    first, second = effects(swept(GRID, [[1.0, 3.0], [4.0, 4.0], [6.0, "failed"], ["failed", "failed"]]))
    assert (first.name, first.scale, first.ticks) == ("grad_accum_steps", "category", ((0, "1"), (1, "4")))
    assert first.points == (
        EffectPoint(position=0, mean=6.0, deviation=None),
        EffectPoint(position=1, mean=3.0, deviation=math.sqrt(2)),
    )
    assert first.lines == (((0, 6.0), (1, 2.0)), ((1, 4.0),))
    assert (first.is_ordered, first.is_binned, first.is_over_seeds) == (True, False, False)
    assert (second.name, second.ticks, second.is_ordered) == ("model", ((0, "mlp"), (1, "cnn")), False)
    assert [point.mean for point in second.points] == [4.0, 4.0]


def test_the_deviation_is_over_seeds_if_each_value_has_one_group() -> None:
    (effect,) = effects(swept([{A: 1}, {A: 2}], [[1.0, 3.0], [5.0, "failed"]]))
    assert effect.is_over_seeds
    assert [point.deviation for point in effect.points] == [math.sqrt(2), None]


def test_a_value_without_a_result_keeps_its_tick() -> None:
    (effect,) = effects(swept([{B: "a"}, {B: "b"}], [["failed"], [5.0]]))
    assert effect.ticks == ((0, "a"), (1, "b"))
    assert [point.position for point in effect.points] == [1]
    assert effects(swept([{B: "a"}, {B: "b"}], [["failed"], ["pruned"]])) == []


@pytest.mark.parametrize(
    ("factor", "scale"),
    [
        (Factor(key=A, values=(0.001, 0.01)), "log"),
        (Factor(key=A, values=(1, 9.9)), "category"),
        (Factor(key=A, values=(0, 1, 100)), "category"),
        (Factor(key=A, values=(1, 100, None)), "category"),
        (Factor(key=A, values=(1, 100, True)), "category"),
        (Factor(key=A, low=1, high=100), "linear"),
        (Factor(key=A, low=1, high=100, is_log=True), "log"),
    ],
    ids=repr,
)
def test_scale_of_the_axis(factor: Factor, scale: str) -> None:
    values: tuple[Any, ...] = factor.values or (factor.low, factor.high)
    index = replace(swept([{A: value} for value in values], [[1.0]] * len(values)), factors=(factor,))
    (effect,) = effects(index)
    assert effect.scale == scale
    if scale != "category":
        assert [point.position for point in effect.points] == list(values)
    assert bool(effect.ticks) is (factor.values is not None)


def test_many_values_of_an_interval_are_averaged_over_6_bins() -> None:
    index = swept([{A: 10.0**at} for at in range(18)], [[float(at)] for at in range(18)])
    (effect,) = effects(replace(index, factors=(Factor(key=A, low=1, high=1e18, is_log=True),)))
    assert effect.is_binned
    assert [point.mean for point in effect.points] == [1.0, 4.0, 7.0, 10.0, 13.0, 16.0]
    assert [point.position for point in effect.points] == pytest.approx([10.0 ** (3 * at + 1) for at in range(6)])
    assert {point.deviation for point in effect.points} == {1.0}


@pytest.mark.parametrize(
    ("mode", "best"),
    [("min", ((0, 3.0), (3, 1.5), (5, 1.5))), ("max", ((0, 3.0), (3, 3.0), (5, 4.0)))],
)
def test_progress_of_a_search(mode: str, best: tuple[tuple[int, float], ...]) -> None:
    index = swept(
        [{A: value} for value in range(7)],
        [[3.0, 3.0], [0.1, "failed"], [0.1, math.nan], [1.0, 2.0], ["pruned", "pending"], [4.0, 4.0], [0.1, "running"]],
        mode=mode,
        settings={"search": "tpe"},
    )
    pruned = index.jobs[8]
    index = index.with_job(replace(pruned, objective=7.0))
    progress = search_progress(index)
    assert progress is not None
    assert progress.proposals == (
        Proposal(0, "done", 3.0),
        Proposal(1, "failed", None),
        Proposal(2, "failed", None),
        Proposal(3, "done", 1.5),
        Proposal(4, "pruned", 7.0),
        Proposal(5, "done", 4.0),
    )
    assert progress.best == best
    assert progress.best_number == (3 if mode == "min" else 5)


@pytest.mark.parametrize("search", ["grid", "auto", None])
def test_a_grid_has_no_progress(search: str | None) -> None:
    assert search_progress(swept([{A: 1}], [[1.0]], settings={"search": search})) is None


def test_a_search_without_an_ended_proposal_has_no_progress() -> None:
    assert search_progress(swept([{A: 1}], [["running"]], settings={"search": "random"})) is None


@settings(max_examples=20)
@given(sweeps(max_groups=16), st.booleans())
def test_each_group_with_a_result_is_on_one_line_of_each_effect(index: SweepIndex, is_interval: bool) -> None:
    if is_interval:
        index = replace(index, factors=tuple(replace(factor, values=None) for factor in index.factors))
    num_results = sum(group.mean is not None for group in index.groups)
    for effect in effects(index):
        assert sum(map(len, effect.lines)) == num_results
        positions = [point.position for point in effect.points]
        assert positions == sorted(positions)
        assert all(label.isprintable() for _, label in effect.ticks)
