"""`draw_curves`, which draws the metrics of one run into ``curves.png``."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwright.errors import CheckpointError, on_one_line
from loopwright.records.panels import RATE, Panel, panels_of, sources_of
from loopwright.records.run_record import SWEEP_FILE, checkpoint_step, find_checkpoints, is_checkpoint_name
from loopwright.records.series import Series, read_mapping, read_series, read_summary
from loopwright.regular_files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_FILE = "curves.png"

# Colours of the palette of Okabe and Ito, except black and yellow. Readers with colour blindness can distinguish the
# colours of this palette.
TRAIN_COLOUR = "#0072B2"
OTHER_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v")
_GREY = "#595959"

_MAX_PANELS = 24
_PANEL_INCHES = (4.4, 2.8)
_MAX_LEGEND_ABOVE = 2
_MANY_POINTS = 200  # a training curve with more points is drawn in a pale colour, below its moving mean
# Vertical offsets of the label from the best value, in units of 1/72 inch. The label is placed at one of them.
_ABOVE, _BELOW = (30, 55, 80), (-36, -61, -86)
_LABEL_PADDING = 5  # pixels between the text of the label and the frame of the label, rounded up
# Losses have a logarithmic axis if the largest loss divided by the smallest loss exceeds this ratio.
_LOG_RANGE = 20.0
_WIDE_LOG_RANGE = 2000.0  # above this ratio, the ticks of a logarithmic axis are powers of 10 only
_CHARACTERS_PER_INCH = 13.5
RESUME_COLOUR = "#8A5A00"
_MAX_NAME = 40  # maximum number of characters of the name of a callback in the title


@dataclass(frozen=True, slots=True)
class _Marks:
    """Steps of checkpoints, and steps from which the run was resumed."""

    checkpoints: Sequence[int]
    resumes: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Best:
    """The best value of one metric."""

    name: str
    step: int
    value: float


def draw_curves(run_dir: Path) -> Path | None:
    """Draw the metrics of a run into ``curves.png`` in its run directory.

    The subplots show the losses, then all other metrics, then the learning rate. A metric that is measured on several
    data sets has one subplot with a line for each set. A line has gaps at NaN and infinite values. The first step with
    such a value is marked.

    Args:
        run_dir: run directory. The metrics are read from ``metrics.jsonl``. The state of the run and the best value are
            read from ``summary.json``, if this file exists.

    Returns:
        The path of the picture, or None if the run has logged no metrics.

    Raises:
        CheckpointError: if a file of the run cannot be read.
        OSError: if the picture cannot be written.
    """
    series = read_series(run_dir)
    if not series:
        return None
    # The import of matplotlib takes half a second. At the top of the module, it would delay the start of every command.
    import matplotlib

    picture = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # settings of the user could make matplotlib run programs such as latex
        warnings.simplefilter("ignore")  # matplotlib warns if its font lacks a character
        _figure(run_dir, series).savefig(picture, format="png", metadata={"Software": None})
    replace_file(run_dir / CURVES_FILE, picture.getvalue())
    return run_dir / CURVES_FILE


def _figure(run_dir: Path, series: Mapping[str, Series]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    summary = read_summary(run_dir)
    marks = _marks(run_dir, summary)
    panels = panels_of(series)
    num_columns = 2 if len(panels) in (2, 4) else min(len(panels), 3)
    num_rows = math.ceil(min(len(panels), _MAX_PANELS) / num_columns)
    width, height = num_columns * _PANEL_INCHES[0], num_rows * _PANEL_INCHES[1] + 0.9
    figure = Figure(figsize=(max(width, 6.2), height), dpi=100)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.75 / width, right=1 - 0.25 / width, top=1 - 1.2 / height, bottom=0.55 / height, wspace=0.22, hspace=0.45
    )
    best = _best(series, summary)
    _write_title(figure, run_dir, summary, best, marks, max(0, len(panels) - _MAX_PANELS))
    sources = sources_of(panels)
    last_step = max(s.steps[-1] for s in series.values())
    for index, panel in enumerate(panels[:_MAX_PANELS]):
        axes = figure.add_subplot(num_rows, num_columns, index + 1)
        _draw_panel(axes, panel, sources, best, last_step)
        _draw_marks(axes, marks, last_step)
    return figure


def _marks(run_dir: Path, summary: Mapping[str, Any]) -> _Marks:
    """Return the steps of the saved checkpoints and of the checkpoints from which the run was resumed."""
    resumes = summary.get("resumes")
    entries = [each for each in resumes if isinstance(each, Mapping)] if isinstance(resumes, list) else []
    names = [str(each.get("checkpoint")) for each in entries]
    checkpoints = [checkpoint_step(folder.name) for folder in find_checkpoints(run_dir)]
    return _Marks(checkpoints, [checkpoint_step(name) for name in names if is_checkpoint_name(name)])


def _draw_marks(axes: Axes, marks: _Marks, last_step: int) -> None:
    """Draw a short tick at the bottom for each checkpoint, and a dashed line for each resume."""
    bottom = axes.get_xaxis_transform()
    checkpoints = [step for step in marks.checkpoints if step <= last_step]
    if checkpoints:
        axes.vlines(checkpoints, 0, 0.03, transform=bottom, color=_GREY, linewidth=0.9)
    for step in marks.resumes:
        if step <= last_step:
            axes.axvline(step, color=RESUME_COLOUR, linewidth=1, linestyle=(0, (4, 3)), zorder=1)


def _best(series: Mapping[str, Series], summary: Mapping[str, Any]) -> _Best | None:
    """Return the best value in the summary. If the summary has none, return the best value of the objective metric."""
    noted = summary.get("best")
    if isinstance(noted, Mapping) and isinstance(noted.get("value"), int | float) and noted.get("name") in series:
        return _Best(noted["name"], int(noted["step"]), float(noted["value"]))
    name = summary.get("objective_name", "val/loss")
    point = series[name].best(summary.get("objective_mode", "min")) if name in series else None
    return None if point is None else _Best(name, *point)


def _write_title(
    figure: Figure, run_dir: Path, summary: Mapping[str, Any], best: _Best | None, marks: _Marks, num_left_out: int
) -> None:
    """Write the path of the run, its changed settings, its state, the number of steps and the best value.

    If ``num_left_out`` is not 0, also write how many metrics are not drawn.
    """
    path = run_dir.resolve().parts
    begin = len(path) - path[::-1].index("outputs") if "outputs" in path[:-1] else -1
    parts = [_state(summary)] if summary.get("state") else []
    if summary.get("global_step"):
        parts.append(f"{summary['global_step']:,} step{'s' if summary['global_step'] > 1 else ''}")
    if best is not None:
        parts.append(f"best {best.name} {best.value:.4g} at step {best.step:,}")
    if marks.checkpoints:
        num = len(marks.checkpoints)
        parts.append(f"ticks: {num:,} checkpoint{'s' if num > 1 else ''}")
    if marks.resumes:
        parts.append("dashed: resumes")
    if num_left_out:
        parts.append(f"{num_left_out} more metrics in metrics.jsonl")
    width, height = figure.get_size_inches()
    figure.text(0.25 / width, 1 - 0.30 / height, " / ".join(path[begin:]), size=12, weight="bold", parse_math=False)
    figure.text(0.25 / width, 1 - 0.55 / height, "  ·  ".join(parts), size=9.5, color=_GREY, parse_math=False)
    changes = _changes_text(run_dir, summary, num_characters=int(width * _CHARACTERS_PER_INCH))
    figure.text(0.25 / width, 1 - 0.77 / height, changes, size=9.5, parse_math=False)


def _changes_text(run_dir: Path, summary: Mapping[str, Any], num_characters: int) -> str:
    """Return the settings that differ from the experiment, such as ``optimizer.lr=0.01``. Swept settings come first."""
    changes, factors = summary.get("changes"), _factors(run_dir.parent)
    pairs = list(changes.items()) if isinstance(changes, Mapping) else []
    pairs.sort(key=lambda pair: pair[0] not in factors)
    words = [f"{path}={json.dumps(pair[1])}" for path, pair in pairs if isinstance(pair, list) and len(pair) == 2]
    return on_one_line("  ".join(words).replace('"', ""), num_characters)


def _factors(directory: Path) -> list[str]:
    """Return the swept settings of the sweep in a directory; an empty list if there is no sweep."""
    try:
        factors = read_mapping(directory / SWEEP_FILE).get("factors")
    except CheckpointError:
        return []
    found = [each.get("key") for each in factors if isinstance(each, Mapping)] if isinstance(factors, list) else []
    return [*map(str, found), "seed"] if found else []


def _state(summary: Mapping[str, Any]) -> str:
    """Return the state of the run, such as "stopped by early_stopping"."""
    state, stop = str(summary["state"]), summary.get("stop")
    by = stop.get("by") if isinstance(stop, Mapping) else None
    return f"{state} by {on_one_line(by, _MAX_NAME)}" if isinstance(by, str) else state


def _draw_panel(axes: Axes, panel: Panel, sources: Mapping[str, int], best: _Best | None, last_step: int) -> None:
    from matplotlib.ticker import LogLocator

    is_rate = panel.title == RATE
    for index, (source, series) in enumerate(panel.series.items()):
        number = index - 1 if is_rate else sources[source]
        _draw_series(axes, series, source, number, is_noisy=not is_rate)
    finite = [value for series in panel.series.values() for _, value in series.finite]
    is_log = panel.title == "loss" and bool(finite) and 0 < min(finite) < max(finite) / _LOG_RANGE
    if is_log:
        axes.set_yscale("log")
        # A short range may contain only one power of 10. Its axis therefore also has ticks at 2 and 5 times each power.
        is_wide = max(finite) / min(finite) > _WIDE_LOG_RANGE
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
    title = f"{panel.title} (log scale)" if is_log else panel.title
    axes.set_title(title, size=11, loc="left", parse_math=False)
    _style(axes, last_step)
    if not is_rate or len(panel.series) > 1:
        place: dict[str, Any] = {"loc": "best"}
        if len(panel.series) <= _MAX_LEGEND_ABOVE:  # a short legend fits beside the title, where it covers no curve
            place = {"loc": "lower right", "bbox_to_anchor": (1.01, 0.99), "ncols": len(panel.series), "borderpad": 0}
        for text in axes.legend(fontsize=7.5, frameon=False, columnspacing=1, handlelength=1.5, **place).get_texts():
            text.set_parse_math(False)
    _mark_first_non_finite(axes, panel)
    if not finite:
        axes.set_yticks([])
    for series in panel.series.values():
        if best is not None and series.name == best.name:
            _mark_best(axes, best, series, last_step)


def _style(axes: Axes, last_step: int) -> None:
    """Format the axes: integer steps from 0, plain numbers, a pale grid, and no lines at the top and right."""
    axes.set_xlim(0, max(last_step, 1) * 1.02)
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.6g}")
    axes.yaxis.set_minor_formatter("")
    axes.set_xlabel("step", size=9, color=_GREY)
    axes.tick_params(labelsize=8, colors=_GREY)
    axes.grid(color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_series(axes: Axes, series: Series, source: str, number: int, *, is_noisy: bool) -> None:
    """Draw the line of a series. The line has gaps at values that are not finite.

    The points have markers if there is only one point, or if ``number`` is not negative.

    Args:
        axes: axes of the panel.
        series: steps and values of the line.
        source: label of the line, such as "train"; if empty, the name of the series is the label.
        number: index of the colour and marker; negative for the training line and for the first learning rate.
        is_noisy: whether a training line with more than `_MANY_POINTS` points is drawn in a pale colour, below its
            moving mean.
    """
    is_train = number < 0
    colour = TRAIN_COLOUR if is_train else OTHER_COLOURS[number % len(OTHER_COLOURS)]
    values = [value if math.isfinite(value) else math.nan for value in series.values]
    num_points, label = len(values), source or series.name
    label = f" {label}" if label.startswith("_") else label  # matplotlib omits labels that begin with _ from legends
    if num_points > _MANY_POINTS and is_train and is_noisy:
        axes.plot(series.steps, values, color=colour, linewidth=0.6, alpha=0.3)
        reach = num_points // 100
        values, label = _moving_mean(values, reach), f"{label}, moving mean over {2 * reach + 1} values"
    (line,) = axes.plot(series.steps, values, color=colour, linewidth=1.3, label=label)
    if num_points == 1 or not is_train:
        line.set_marker("o" if is_train else _MARKERS[number % len(_MARKERS)])
        line.set_markersize(7 if num_points == 1 else 3.5)
        line.set_markevery(max(1, num_points // 20))  # about 20 markers on a line


def _mark_first_non_finite(axes: Axes, panel: Panel) -> None:
    """Mark the first step with a NaN or infinite value. The curve has a gap at this step."""
    non_finite = [
        (step, source)
        for source, series in panel.series.items()
        for step, value in zip(series.steps, series.values, strict=True)
        if not math.isfinite(value)
    ]
    if not non_finite:
        return
    step, source = min(non_finite)
    axes.axvline(step, color=_GREY, linewidth=1, linestyle=":")
    axes.annotate(
        f"{source} not finite at step {step:,}".strip(),
        (step, 0.04),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        rotation=90,
        size=8,
        color=_GREY,
        parse_math=False,
    )


def _mark_best(axes: Axes, best: _Best, series: Series, last_step: int) -> None:
    """Mark the best point with a ring and a label.

    The best position is inside the axes, does not cover the legend, and covers the fewest curves, in this order of
    importance. Among equally good positions, a position above the point is chosen for a falling curve, and a position
    below the point for a rising curve.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    curves = [line.get_path() for line in axes.lines]
    axes.plot([best.step], [best.value], marker="o", markersize=9, fillstyle="none", color="black", zorder=5)
    label = axes.annotate(
        f"best {best.value:.4g} at step {best.step:,}",
        (best.step, best.value),
        xytext=(0, 0),
        textcoords="offset points",
        size=8.5,
        zorder=6,
        bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "#BFBFBF", "alpha": 0.9},
        arrowprops={"arrowstyle": "-", "color": _GREY, "linewidth": 0.8, "shrinkB": 5},
    )
    axes.get_ylim()  # this call computes the limits of the axes, which transData needs
    curves = [path.transformed(axes.transData).cleaned(remove_nans=True) for path in curves]
    canvas, legend = axes.figure.canvas, axes.get_legend()
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]

    def put(place: tuple[int, int]) -> tuple[bool, bool, int]:
        """Move the label. Return whether it leaves the axes or covers the legend, and how many curves it covers."""
        label.xyann = place
        label.set_horizontalalignment("right" if place[0] < 0 else "left")
        label.update_positions(renderer)
        box = Text.get_window_extent(label, renderer).padded(_LABEL_PADDING)
        is_inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
        is_inside = is_inside and axes.bbox.containsy(box.y0) and axes.bbox.containsy(box.y1)
        on_legend = legend is not None and box.overlaps(legend.get_window_extent(renderer))
        return not is_inside, on_legend, sum(path.intersects_bbox(box, filled=False) for path in curves)

    sides = (-16, 16) if best.step > last_step / 2 else (16, -16)
    heights = (*_ABOVE, 0, *_BELOW) if best.value <= series.finite[0][1] else (*_BELOW, 0, *_ABOVE)
    put(min(((side, height) for height in heights for side in sides), key=put))


def _moving_mean(values: Sequence[float], reach: int) -> list[float]:
    """Average each value with up to ``reach`` values before and after it. A mean is NaN if one of its values is NaN."""
    windows = (values[max(0, at - reach) : at + reach + 1] for at in range(len(values)))
    return [sum(window) / len(window) for window in windows]
