"""Learning curves of a sweep as data: points that are kept, panels, styles and means."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright.experiment.sweep.index import Factor, SweepIndex
from loopwright.experiment.sweep.pictures.picture_data import (
    MAX_POINTS,
    LearningCurves,
    Points,
    decimated,
    learning_curves,
    mean_curve,
    needs_log,
    read_points,
)
from swept import sweeps, swept

A, B = "loop.grad_accum_steps", "model"
GRID = [{A: a, B: b} for a in (1, 2) for b in ("mlp", "cnn")]
LINE: Points = ((10, 1.0), (20, 0.5))


def all_curves(index: SweepIndex, points: Points = LINE) -> LearningCurves:
    return learning_curves(index, {job.number: points for job in index.jobs})


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, -1e300, 1e300, math.nan, math.inf]), max_size=40),
    st.integers(1, 60),
)
def test_decimation_keeps_first_last_smallest_and_largest(pattern: Sequence[float], repeats: int) -> None:
    points = list(enumerate([*pattern, 0.5] * repeats))
    found = decimated(points)
    assert len(found) <= MAX_POINTS
    assert (found[0], found[-1]) == (points[0], points[-1])
    positions = [step for step, _ in found]
    assert positions == sorted(set(positions))
    assert all(points[step] is point for step, point in zip(positions, found, strict=True))
    finite, kept = ([value for _, value in each if math.isfinite(value)] for each in (points, found))
    assert (min(kept), max(kept)) == (min(finite), max(finite))
    assert len(kept) < len(found) or len(finite) == len(points)


def test_a_short_curve_keeps_all_points() -> None:
    points = tuple((step, float(step)) for step in range(MAX_POINTS))
    assert decimated(points) == points
    assert len(decimated((*points, (MAX_POINTS, 0.0)))) < MAX_POINTS + 1


def test_one_spike_of_a_long_curve_is_kept() -> None:
    points = [(step, 9.0 if step == 7777 else 0.0) for step in range(10_000)]
    assert (7777, 9.0) in decimated(points)


def test_the_mean_has_the_steps_that_all_curves_have() -> None:
    assert mean_curve([((1, 1.0), (2, 2.0), (4, 5.0)), ((2, 4.0), (3, 9.0), (4, 7.0))]) == ((2, 3.0), (4, 6.0))


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        ([0.1, 2.1], "min", True),
        ([0.1, 2.0], "min", False),
        ([0.1, 2.1], "max", False),
        ([0.0, 2.1], "min", False),
        ([-0.1, 2.1], "min", False),
        ([0.1, math.inf, math.nan], "min", False),
        ([], "min", False),
    ],
)
def test_losses_over_more_than_a_factor_of_20_need_a_logarithmic_axis(
    values: list[float], mode: str, expected: bool
) -> None:
    assert needs_log(values, mode) is expected


def test_a_panel_per_value_of_the_first_factor_and_a_style_per_value_of_the_others() -> None:
    found = all_curves(swept(GRID, [[1.0, 2.0]] * 4))
    assert [panel.title for panel in found.panels] == ["grad_accum_steps=1", "grad_accum_steps=2"]
    assert [[curve.job for curve in panel.curves] for panel in found.panels] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert found.styles == {0: 0, 1: 1, 2: 0, 3: 1}
    assert found.labels == ("model=mlp", "model=cnn")
    assert (found.num_more_values, found.is_log) == (0, False)


def test_means_leave_failed_jobs_out_and_need_several_curves() -> None:
    index = swept([{A: value} for value in (1, 2, 3, 4)], [[1.0, 2.0], [1.0, "failed"], ["failed"] * 2, [1.0]])
    points = {job.number: ((10, float(job.number)), (20, math.nan)) for job in index.jobs}
    panels = learning_curves(index, points).panels
    assert [[mean.points[0] for mean in panel.means] for panel in panels] == [[(10, 0.5)], [(10, 2.0)], [], []]
    assert [[curve.is_failed for curve in panel.curves] for panel in panels[1:3]] == [[False, True], [True, True]]
    assert panels[2].curves[0].end == (10, 4.0)


def test_at_most_12_values_have_a_panel() -> None:
    found = all_curves(swept([{A: value} for value in range(15)], [[1.0]] * 15))
    assert (len(found.panels), found.num_more_values) == (12, 3)
    assert len(found.styles) == 12


def test_values_without_a_curve_have_no_panel() -> None:
    index = swept([{A: value} for value in range(15)], [[1.0]] * 15)
    found = learning_curves(index, {3: LINE})
    assert [panel.title for panel in found.panels] == ["grad_accum_steps=3"]
    assert found.num_more_values == 0
    assert learning_curves(index, {}).panels == ()


def test_values_of_an_interval_are_divided_into_6_panels() -> None:
    values = [0.01 * 1.5**at for at in (6, 0, 1, 2, 3, 4, 5)]
    index = replace(swept([{A: value} for value in values], [[1.0]] * 7), factors=(Factor(key=A, low=0.01, high=1.0),))
    found = all_curves(index)
    assert [panel.title for panel in found.panels] == [
        *(f"grad_accum_steps={0.01 * 1.5**at:.3g}" for at in range(5)),
        "grad_accum_steps from 0.0759 to 0.114",
    ]
    assert found.styles == {0: 1, **dict.fromkeys(range(1, 7), 0)}
    assert found.labels == ()
    few = replace(index, groups=index.groups[:2], jobs=index.jobs[:2])
    assert [panel.title for panel in all_curves(few).panels] == ["grad_accum_steps=0.01", "grad_accum_steps=0.113906"]


def test_a_sweep_over_seeds_has_one_panel() -> None:
    (panel,) = all_curves(swept([{}], [[1.0, 2.0]])).panels
    assert (panel.title, len(panel.curves), len(panel.means)) == ("as configured", 2, 1)


@settings(max_examples=20)
@given(sweeps(max_groups=16))
def test_each_group_with_a_curve_is_in_one_panel_or_counted(index: SweepIndex) -> None:
    found = all_curves(index)
    drawn = [curve.job for panel in found.panels for curve in panel.curves]
    assert len(drawn) == len(set(drawn))
    assert found.num_more_values > 0 or sorted(drawn) == [job.number for job in index.jobs]
    assert {index.jobs[number].group for number in drawn} <= set(found.styles)
    assert all(panel.title.isprintable() and len(panel.title) <= 60 for panel in found.panels)


def test_points_are_the_objective_of_run_directories_that_can_be_read(tmp_path: Path) -> None:
    index = swept([{A: value} for value in range(6)], [[1.0]] * 5 + [["pending"]])
    rows = {
        0: [(10, "val/loss", 0.5), (10, "val/accuracy", 0.9), (20, "val/loss", 1e305), (1 << 60, "val/loss", 0.1)],
        1: [(10, "val/accuracy", 0.9)],
        2: [(10, "val/loss", math.nan)],
        5: [(10, "val/loss", 0.5)],
    }
    for number, entries in rows.items():
        (tmp_path / str(number)).mkdir()
        lines = [json.dumps({"step": step, "name": name, "value": value}) for step, name, value in entries]
        (tmp_path / str(number) / "metrics.jsonl").write_text("\n".join(lines))
    (tmp_path / "3" / "metrics.jsonl").mkdir(parents=True)
    found = read_points(tmp_path, index)
    assert list(found) == [0]
    assert found[0][0] == (10, 0.5)
    assert found[0][1][0] == 20
    assert math.isnan(found[0][1][1])
    assert len(found[0]) == 2
