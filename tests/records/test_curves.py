"""Tests of `draw_curves`: any logged metrics can be drawn, and the picture shows all of them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from loopwright.records import draw_curves
from loopwright.records.curves import OTHER_COLOURS, TRAIN_COLOUR

Entry = tuple[int, str, float]


def write(run_dir: Path, entries: Iterable[Entry], **summary: Any) -> Path:
    run_dir.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"step": s, "name": n, "value": v if math.isfinite(v) else str(v)}) for s, n, v in entries]
    (run_dir / "metrics.jsonl").write_text("\n".join(lines))
    known = {"state": "completed", "global_step": 1, "objective_name": "val/loss", "objective_mode": "min"}
    (run_dir / "summary.json").write_text(json.dumps(known | summary))
    return run_dir


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures in the order in which they are saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def note(figure: Figure, *args: Any, **settings: Any) -> None:
        saved.append(figure)
        save(figure, *args, **settings)

    monkeypatch.setattr(Figure, "savefig", note)
    return saved


def texts(figure: Figure) -> str:
    shown = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        legend = axes.get_legend()
        shown += [text.get_text() for text in (*axes.texts, *(legend.get_texts() if legend else ()))]
    return "\n".join(shown)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def usual_entries(num_steps: int = 400) -> list[Entry]:
    steps = range(50, num_steps + 1, 50)
    entries = [(s, "lr", 0.1 / s) for s in steps] + [(s, "train/loss", math.exp(-s / 90)) for s in steps]
    entries += [(s, f"{name}/loss", math.exp(-s / 99)) for s in steps[1::2] for name in ("val/a", "val/b")]
    return entries + [(s, "val/a/accuracy", s / num_steps) for s in steps[1::2]]


def test_losses_come_first_the_learning_rate_last_and_colours_match_across_panels(
    tmp_path: Path, figures: list[Figure]
) -> None:
    best = {"name": "val/a/accuracy", "value": 1.0, "step": 400}
    assert draw_curves(write(tmp_path, usual_entries(), best=best, global_step=400)) == tmp_path / "curves.png"
    (figure,) = figures
    assert titles(figure) == ["loss (log scale)", "accuracy", "learning rate"]
    loss, accuracy, rate = figure.axes
    assert [line.get_color() for line in loss.lines] == [TRAIN_COLOUR, *OTHER_COLOURS[:2]]
    assert accuracy.lines[0].get_color() == OTHER_COLOURS[0]
    assert rate.lines[0].get_color() == TRAIN_COLOUR
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "linear"]
    assert "train\nval/a\nval/b" in texts(figure)
    assert "best 1 at step 400" in texts(figure)
    assert "completed  ·  400 steps  ·  best val/a/accuracy 1 at step 400" in texts(figure)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width >= 1000
    assert [file.name for file in tmp_path.glob(".*")] == []


@pytest.mark.parametrize(
    ("stop", "expected"),
    [({"by": "early_stopping", "reason": "r"}, "stopped by early_stopping"), ({"by": None}, "stopped"), (3, "stopped")],
)
def test_the_title_names_the_callback_that_stopped_the_run(
    stop: object, expected: str, tmp_path: Path, figures: list[Figure]
) -> None:
    draw_curves(write(tmp_path, usual_entries(), state="stopped", stop=stop, global_step=400))
    assert f"\n{expected}  ·  400 steps" in texts(figures[0])


def test_without_a_recorded_best_value_the_best_objective_is_marked(tmp_path: Path, figures: list[Figure]) -> None:
    draw_curves(
        write(tmp_path, [(1, "val/f1", 0.1), (2, "val/f1", 0.5)], objective_name="val/f1", objective_mode="max")
    )
    assert "best 0.5 at step 2" in texts(figures[0])


@pytest.mark.parametrize(
    "entries",
    [
        [(0, "val/loss", 1.0)],
        [(1, "train/loss", 2.0), (1, "lr", 0.1), (1, "val/loss", 2.1)],
        [(s, "train/loss", math.nan) for s in (1, 2)],
        [(1, "val/loss", 0.0), (2, "val/loss", -5.0), (3, "val/loss", 1e300)],
        [
            (1, r"a b/ç/$\foo$ %", 1.0),
            (1, "_a/漢", 1.0),
            (1, "", 2.0),
            (1, "/", 3.0),
            (1, "lr/0", 1.0),
            (1, "lr/1", 2.0),
            (1, "lr", 1.0),
        ],
        [(s, f"val/m{m}", s * m) for m in range(40) for s in (1, 2)],
        [(10**12, "val/loss", 1e-300)],
    ],
    ids=["step 0", "one point", "all NaN", "extremes", "names", "40 metrics", "large"],
)
def test_unusual_values_and_names_are_drawn(tmp_path: Path, entries: list[Entry]) -> None:
    assert draw_curves(write(tmp_path, entries)) is not None


@pytest.mark.parametrize(
    ("best_step", "names"),
    [(600, ["val/loss"]), (200, ["val/loss"]), (4000, ["val/loss"]), (600, ["val/a/loss", "val/b/loss", "val/c/loss"])],
)
def test_the_label_of_the_best_point_covers_no_title_and_no_legend(
    tmp_path: Path, figures: list[Figure], best_step: int, names: list[str]
) -> None:
    """A validation loss that rises again is near the top of the axes if the training loss falls far below it."""
    entries = [(s, "train/loss", 2.3 * math.exp(-s / 300)) for s in range(100, 4001, 100)]
    entries += [(s, n, 0.1 + abs(s - best_step) / 20000) for s in range(200, 4001, 200) for n in names]
    best = {"name": names[0], "value": 0.1, "step": best_step}
    draw_curves(write(tmp_path, entries, best=best, global_step=4000))
    axes = figures[0].axes[0]
    (label,) = axes.texts
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = label.get_bbox_patch()
    legend = axes.get_legend()
    assert frame is not None and legend is not None
    box = frame.get_window_extent(renderer)
    assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
    assert axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
    assert not box.overlaps(legend.get_window_extent(renderer))


def test_a_logarithmic_axis_of_many_powers_of_ten_has_few_ticks(tmp_path: Path, figures: list[Figure]) -> None:
    draw_curves(write(tmp_path, [(s, "train/loss", 10.0**-s) for s in range(7)]))
    assert len(figures[0].axes[0].get_yticks()) < 12


def test_values_that_are_not_finite_are_marked(tmp_path: Path, figures: list[Figure]) -> None:
    draw_curves(write(tmp_path, [(1, "train/loss", 1.0), (2, "train/loss", math.inf), (3, "train/loss", math.nan)]))
    assert "train not finite at step 2" in texts(figures[0])


def test_the_legend_of_a_long_training_curve_says_that_it_is_a_mean(tmp_path: Path, figures: list[Figure]) -> None:
    draw_curves(write(tmp_path, [(s, "train/loss", 1 + s % 7) for s in range(1, 401)]))
    assert "train, moving mean over 9 values" in texts(figures[0])


def test_metrics_that_are_not_drawn_are_counted_in_the_title(tmp_path: Path, figures: list[Figure]) -> None:
    draw_curves(write(tmp_path, [(1, f"val/m{m}", 1.0) for m in range(30)]))
    assert len(figures[0].axes) == 24
    assert "6 more metrics in metrics.jsonl" in texts(figures[0])


@pytest.mark.parametrize(
    ("where", "title"),
    [
        ("outputs/digits/2026-11-22_18-25-34_e282c4", "digits / 2026-11-22_18-25-34_e282c4"),
        ("outputs/digits/2026_sweep/3", "digits / 2026_sweep / 3"),
        ("mine", "mine"),
    ],
)
def test_the_title_names_the_run(tmp_path: Path, figures: list[Figure], where: str, title: str) -> None:
    draw_curves(write(tmp_path / where, [(1, "val/loss", 1.0)]))
    assert figures[0].texts[0].get_text() == title


def test_the_same_run_gives_the_same_picture(tmp_path: Path) -> None:
    pictures = [(draw_curves(write(tmp_path / "a" / "run", usual_entries())) or Path()).read_bytes() for _ in range(2)]
    assert pictures[0] == pictures[1]


def test_a_run_without_metrics_has_no_picture_and_imports_no_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from loopwright.records import draw_curves; "
        f"assert draw_curves(pathlib.Path({str(tmp_path)!r})) is None; "
        "assert not {'matplotlib', 'torch', 'numpy'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.iterdir()) == []


def test_the_picture_does_not_depend_on_settings_of_matplotlib(tmp_path: Path) -> None:
    first = (draw_curves(write(tmp_path / "a" / "run", usual_entries())) or Path()).read_bytes()
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "savefig.dpi": 30, "font.size": 40}):
        again = draw_curves(write(tmp_path / "a" / "run", usual_entries()))
        assert matplotlib.rcParams["font.size"] == 40
    assert (again or Path()).read_bytes() == first
