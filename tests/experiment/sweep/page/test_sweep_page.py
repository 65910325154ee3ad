"""The page of a sweep shows the results, the errors and the commands of the sweep, and no text becomes markup."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.page.sweep_page import sweep_page
from records.report.pages import Page
from swept import sweeps, swept

SIX = [{"loop.grad_accum_steps": value} for value in (1, 2, 4)]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def page_of(directory: Path, index: SweepIndex) -> Page:
    page = Page(sweep_page(directory, index))
    assert page.is_balanced
    return page


def write_curves(directory: Path, index: SweepIndex, steps: Sequence[int] = (10, 20, 30)) -> None:
    for job in index.jobs:
        (directory / job.directory).mkdir()
        lines = [{"step": step, "name": "val/loss", "value": 1 / step + job.number / 100} for step in steps]
        (directory / job.directory / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_the_first_screen_names_the_best_group_and_the_commands(tmp_path: Path) -> None:
    index = swept(SIX, [[0.0714, 0.0742], [0.0702, "failed"], [0.0661, 0.0673]])
    write_curves(tmp_path, index)
    page = page_of(tmp_path, index)
    assert "✗ 5 of 6 done, 1 failed" in page.text and "▸ 4" in page.text
    assert "standard errors better than loop.grad_accum_steps=1" in page.text
    assert "loopwright loop.grad_accum_steps=4 seed=0" in page.text and "loopwright sweep retry" in page.text
    assert "RuntimeError: boom at step 20." in page.text
    charts = page.data["charts"].values()
    assert len(charts) == 3 and all(chart["y_range"] == next(iter(charts))["y_range"] for chart in charts)
    assert [each["name"] for each in next(iter(charts))["series"]] == ["mean", "job 0 (seed 0)", "job 1 (seed 1)"]
    assert [len(chart["failed"]) for chart in charts] == [0, 1, 0]


def test_jobs_with_one_value_have_no_curves(tmp_path: Path) -> None:
    index = swept(SIX, [[0.1], [0.2], [0.3]])
    write_curves(tmp_path, index, steps=[30])
    page = page_of(tmp_path, index)
    assert "so there are no curves" in page.text and not page.data["charts"]
    assert "Effects of single settings" in page.text


def test_three_factors_have_parallel_coordinates_whose_lines_name_their_groups(tmp_path: Path) -> None:
    values = [
        {"optimizer.lr": rate, "model.dropout": 0.1, "data.batch_size": size}
        for rate in (0.1, 0.01)
        for size in (16, 32)
    ]
    page = page_of(tmp_path, swept(values, [[0.4], [0.3], [0.2], [0.1]]))
    assert [value for name, value in page.attributes if name == "data-axis"] == ["0", "1", "2", "3"]
    shares = [value for name, value in page.attributes if name == "data-shares"]
    assert len(shares) == 4 and all(len(str(each).split()) == 4 for each in shares)
    two = [{"a": value, "b": 1} for value in (1, 2)]
    assert "data-axis" not in dict(page_of(tmp_path, swept(two, [[0.1], [0.2]])).attributes)


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    values = [{HOSTILE: HOSTILE}, {HOSTILE: "b"}]
    index = swept(values, [[0.1, 0.2], ["failed", 0.3]], error=HOSTILE, metrics={0: {f"val/{HOSTILE}": 0.5}})
    write_curves(tmp_path, index)
    (tmp_path / "0" / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    (tmp_path / "1" / "environment.json").write_text(json.dumps({HOSTILE: 1}))
    page = page_of(tmp_path, index)
    assert page.tags.count("script") == 2 and "img" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_environments_that_differ_are_listed(tmp_path: Path) -> None:
    index = swept(SIX, [[0.1], [0.2], [0.3]])
    write_curves(tmp_path, index)
    for number, version in enumerate(("2.12", "2.13", "2.13")):
        (tmp_path / str(number) / "environment.json").write_text(json.dumps({"torch": version, "python": "3.11"}))
    text = page_of(tmp_path, index).text
    assert '"2.12" (jobs 0); "2.13" (jobs 1, 2)' in text and '"3.11"' not in text


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sweeps())
def test_any_sweep_has_a_balanced_page(tmp_path: Path, index: SweepIndex) -> None:
    page_of(tmp_path, index)


@pytest.mark.slow
def test_a_thousand_jobs_stay_below_eight_megabytes(tmp_path: Path) -> None:
    values = [{"a": a, "b": b, "c": c} for a in range(10) for b in range(10) for c in range(10)]
    index = swept(values, [[0.1 + number / 1000] for number in range(1000)])
    for job in index.jobs:
        (tmp_path / job.directory).mkdir()
        lines = [json.dumps({"step": step, "name": "val/loss", "value": 1 / step}) for step in range(1, 301)]
        (tmp_path / job.directory / "metrics.jsonl").write_text("\n".join(lines))
    assert len(sweep_page(tmp_path, index).encode()) < 8_000_000
