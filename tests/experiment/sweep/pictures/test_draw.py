"""`draw_sweep`: which pictures are written, and what they show."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from loopwright.experiment.sweep.index import Factor, Objective, SweepIndex
from loopwright.experiment.sweep.pictures.draw import draw_sweep
from swept import swept

A, B = "loop.grad_accum_steps", "optimizer.lr"


def draw(directory: Path, index: SweepIndex) -> list[str]:
    """Write metrics for all jobs that were started, draw the pictures, and return the names of the files."""
    for job in index.jobs:
        if job.state in ("pending", "skipped"):
            continue
        (directory / job.directory).mkdir()
        last = 2 if job.state == "failed" else 5
        rows = [{"step": 10 * at, "name": index.objective.name, "value": 3.0 / at**2} for at in range(1, last)]
        (directory / job.directory / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    paths = draw_sweep(directory, index)
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.info.get("Software") is None
            image.verify()
    written = {path.name for path in directory.iterdir() if not path.is_dir()}
    assert written == {path.name for path in paths}
    return [path.name for path in paths]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures in the order in which they are saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def note(figure: Figure, *args: Any, **options: Any) -> None:
        saved.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", note)
    return saved


def grid() -> list[dict[str, Any]]:
    return [{A: a, B: b} for a in (1, 2) for b in (0.001, 0.01)]


def test_a_grid_with_failures(tmp_path: Path, figures: list[Figure]) -> None:
    index = swept(grid(), [[0.3, 0.2], [0.5, "failed"], [0.1, 0.2], ["running", "pending"]])
    assert draw(tmp_path, index) == ["curves.png", "effects.png"]
    curves, effects = figures
    assert [axes.get_title(loc="left") for axes in curves.axes] == ["grad_accum_steps=1", "grad_accum_steps=2"]
    subtitle = "val/loss (min) by grad_accum_steps  ·  5 of 8 jobs done, 1 failed (×), 1 running, 1 pending"
    assert [text.get_text() for text in curves.texts] == [f"digits / {tmp_path.name}", subtitle]
    crosses = [
        line.get_xydata()[-1].tolist() for axes in curves.axes for line in axes.lines if line.get_marker() == "x"
    ]
    assert crosses == [[10.0, 3.0]]
    assert {(axes.get_xlim(), axes.get_ylim()) for axes in curves.axes} == {
        (curves.axes[0].get_xlim(), curves.axes[0].get_ylim())
    }
    assert [text.get_text() for text in curves.legends[0].get_texts()] == ["lr=0.001", "lr=0.01"]
    assert [axes.get_xscale() for axes in effects.axes] == ["linear", "log"]
    assert "1 failed job left out" in effects.texts[1].get_text()


def test_losses_over_a_wide_range_have_logarithmic_axes(tmp_path: Path, figures: list[Figure]) -> None:
    index = swept([{A: 1}, {A: 2}], [[50.0, 60.0], [0.5, 0.6]])
    assert draw(tmp_path, index) == ["curves.png", "effects.png"]
    assert [axes.get_yscale() for figure in figures for axes in figure.axes] == ["linear", "linear", "log"]


def test_a_search_has_a_picture_of_its_progress(tmp_path: Path, figures: list[Figure]) -> None:
    results: list[list[float | str]] = [[0.9], [0.5], ["failed"], ["pruned"], [0.7]] * 3
    index = swept([{B: 0.001 * 1.3**at} for at in range(15)], results, settings={"search": "tpe"})
    index = index.with_job(replace(index.jobs[3], objective=0.8))
    index = replace(index, factors=(Factor(key=B, low=0.001, high=0.1, is_log=True),))
    assert draw(tmp_path, index) == ["curves.png", "effects.png", "search.png"]
    curves, effects, search = figures
    assert len(curves.axes) == 6
    assert effects.axes[0].get_xscale() == "log"
    (axes,) = search.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["best so far", "done", "pruned", "failed"]
    assert "best 0.5 at proposal 1  ·  9 done, 3 pruned, 3 failed" in search.texts[1].get_text()


def test_a_sweep_over_seeds_has_curves_only(tmp_path: Path) -> None:
    assert draw(tmp_path, swept([{}], [[0.1, 0.2]], settings={"search": "tpe"})) == ["curves.png"]


def test_values_beyond_12_are_counted_in_the_title(tmp_path: Path, figures: list[Figure]) -> None:
    draw(tmp_path, swept([{A: value} for value in range(14)], [[0.5]] * 14))
    assert len(figures[0].axes) == 12
    assert "and 2 more values" in figures[0].texts[1].get_text()


@pytest.mark.parametrize("state", ["pending", "running", "interrupted", "skipped"])
def test_no_picture_before_a_job_has_ended(tmp_path: Path, state: str) -> None:
    assert draw(tmp_path, swept([{A: 1}, {A: 2}], [[state], [state]])) == []


def test_results_are_drawn_without_run_directories(tmp_path: Path) -> None:
    assert [path.name for path in draw_sweep(tmp_path, swept([{A: 1}], [[0.5]]))] == ["effects.png"]
    assert draw_sweep(tmp_path, swept([{A: 1}], [["failed"]])) == []


def test_texts_of_the_index_are_drawn_as_plain_text(tmp_path: Path, figures: list[Figure]) -> None:
    bad = "$\\frac{$\n\x1b[31m\ud800" + "ü" * 300
    index = swept([{bad: f"{bad}{at}", "a": bad} for at in range(9)], [[0.5]] * 9)
    index = replace(index, name=bad, objective=Objective(name=bad, mode="min"))
    assert draw(tmp_path, index) == ["curves.png", "effects.png"]
    for figure in figures:
        texts = [*figure.texts, *(axes.title for axes in figure.axes)]
        texts += [label for axes in figure.axes for label in axes.get_xticklabels()]
        assert all(text.get_text().isprintable() and len(text.get_text()) < 200 for text in texts)
    assert max(figure.get_figheight() for figure in figures) < 15


def test_settings_of_the_user_are_not_used_and_not_changed(tmp_path: Path) -> None:
    with matplotlib.rc_context({"text.usetex": True, "figure.dpi": 7}):
        assert draw(tmp_path, swept([{A: 1}], [[0.5]])) == ["curves.png", "effects.png"]
        assert matplotlib.rcParams["text.usetex"]


def test_the_modules_import_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, loopwright.experiment.sweep.pictures; print({'torch', 'hydra', 'matplotlib'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
