"""Functions that draw the panels, titles, axes and legends of the pictures of a sweep."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.pictures.effect_data import Effect
from loopwright.experiment.sweep.pictures.factor_values import shortened
from loopwright.records.curves import OTHER_COLOURS, TRAIN_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#595959"
CROSS: dict[str, Any] = {"marker": "x", "color": "black", "linestyle": "", "markeredgewidth": 1.6, "clip_on": False}

_COLOURS = (TRAIN_COLOUR, *OTHER_COLOURS)
_LINE_STYLES = ("-", "--", ":", "-.")  # the line style changes when all colours are used

# Sizes in inches.
_PANEL_HEIGHT, _COLUMN_GAP, _ROW_GAP = 2.3, 0.35, 0.75
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.75, 0.3, 1.05, 0.6
_CHARACTER_WIDTH = 0.072
_LEGEND_ROW, _LEGEND_LINE = 0.22, 0.62
_ANGLE = math.radians(30)  # of rotated labels

_MAX_NAME = 60  # maximum number of characters of the name of the sweep, and of the objective
# Above this ratio, the ticks of a horizontal or vertical logarithmic axis are powers of 10 only.
_WIDE_LOG_RANGE = {"x": 50.0, "y": 2000.0}
_STATES = ("pruned", "failed", "interrupted", "running", "pending", "skipped")


def num_columns_of(num_panels: int) -> int:
    """Return the number of columns in which panels are arranged."""
    return {1: 1, 2: 2, 4: 2}.get(num_panels, 3 if num_panels <= 9 else 4)


def panel_width(num_panels: int) -> float:
    """Return the width of a panel in inches. A single panel is wider than a panel among several."""
    return {1: 6.5, 2: 4.2}.get(num_columns_of(num_panels), 3.6)


def make_figure(
    num_panels: int,
    *,
    label_size: tuple[float, float] = (0.0, 0.0),
    legend_height: float = 0.0,
    shares_x: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, which share the axis of the objective.

    Args:
        num_panels: number of panels.
        label_size: width and height in inches that labels need to the left of a panel, and below it.
        legend_height: height in inches of the legend at the bottom of the figure.
        shares_x: whether the panels share the horizontal axis, too. The axis is then labelled below each column only.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_columns, panel = num_columns_of(num_panels), panel_width(num_panels)
    num_rows = math.ceil(num_panels / num_columns)
    row_gap = (0.45 if shares_x else _ROW_GAP) + label_size[1]
    bottom = _BOTTOM + label_size[1] + legend_height
    left = max(_LEFT, label_size[0])
    width = left + num_columns * panel + (num_columns - 1) * _COLUMN_GAP + _RIGHT
    height = _TOP + num_rows * _PANEL_HEIGHT + (num_rows - 1) * row_gap + bottom
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=left / width,
        right=1 - _RIGHT / width,
        top=1 - _TOP / height,
        bottom=bottom / height,
        wspace=_COLUMN_GAP / panel,
        hspace=row_gap / _PANEL_HEIGHT,
    )
    grid = figure.subplots(num_rows, num_columns, squeeze=False, sharex=shares_x, sharey=True)
    panels: list[Axes] = list(grid.flat)
    for axes in panels[num_panels:]:
        axes.remove()
    for at, axes in enumerate(panels[:num_panels]):
        if at + num_columns >= num_panels:  # there is no panel below this panel
            axes.tick_params(labelbottom=True)
    return figure, panels[:num_panels]


def write_title(figure: Figure, directory: Path, index: SweepIndex, parts: Sequence[str]) -> None:
    """Write the name and the folder of the sweep, and below them the objective and further texts."""
    objective = f"{shortened(index.objective.name, _MAX_NAME)} ({index.objective.mode})"
    width, height = figure.get_size_inches()
    names = [shortened(name, _MAX_NAME) for name in (index.name, directory.resolve().name)]
    figure.text(0.25 / width, 1 - 0.32 / height, " / ".join(names), size=12, weight="bold", parse_math=False)
    text = "  ·  ".join([f"{objective} {parts[0]}".rstrip(), *parts[1:]])
    figure.text(0.25 / width, 1 - 0.58 / height, text, size=9.5, color=GREY, parse_math=False)


def job_counts(index: SweepIndex, failed_mark: str = "") -> str:
    """Return how many jobs have each state, such as "5 of 6 jobs done, 1 failed"."""
    counts = Counter(job.state for job in index.jobs)
    marks = {"failed": failed_mark}
    parts = [f"{counts[state]} {state}{marks.get(state, '')}" for state in _STATES if counts[state]]
    num_jobs = len(index.jobs)
    return ", ".join([f"{counts['done']} of {num_jobs} job{'s' if num_jobs > 1 else ''} done", *parts])


def line_style(at: int) -> dict[str, Any]:
    """Return the colour and the line style with an index."""
    style = _LINE_STYLES[at // len(_COLOURS) % len(_LINE_STYLES)]
    return {"color": _COLOURS[at % len(_COLOURS)], "linestyle": style}


def legend_size(labels: Sequence[str], num_panels: int) -> tuple[int, float]:
    """Return the number of columns of a legend below the panels, and its height in inches."""
    if not labels:
        return 1, 0.0
    width = num_columns_of(num_panels) * panel_width(num_panels)
    num_columns = max(1, int(width / (_LEGEND_LINE + _CHARACTER_WIDTH * max(map(len, labels)))))
    return num_columns, _LEGEND_ROW * math.ceil(len(labels) / num_columns)


def draw_legend(figure: Figure, labels: Sequence[str], num_columns: int) -> None:
    """Draw a legend of line styles at the bottom of a figure. The first label has the line style 0."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linewidth=2, label=label, **line_style(at)) for at, label in enumerate(labels)]
    legend = figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.5 * _LEFT / figure.get_figwidth(), 0),
        ncols=num_columns,
        fontsize=8.5,
        frameon=False,
        columnspacing=1.5,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def style_values(panels: Sequence[Axes], values: Sequence[float], *, is_log: bool) -> None:
    """Format the common axis of the objective, and draw a pale grid without lines at the top and right."""
    for axes in panels:
        if is_log:
            axes.set_yscale("log")
            set_log_ticks(axes, "y", [value for value in values if math.isfinite(value)])
        else:
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.6g}")
        axes.tick_params(labelsize=8, colors=GREY)
        axes.grid(color="#E6E6E6", linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)


def set_log_ticks(axes: Axes, which: str, values: Sequence[float]) -> None:
    """Place the ticks of a logarithmic axis at powers of 10, and in a short range also at 2 and 5 times the powers."""
    from matplotlib.ticker import LogLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    is_wide = max(values) / min(values) > _WIDE_LOG_RANGE[which]
    axis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:.6g}")
    axis.set_minor_formatter("")


def is_rotated(effect: Effect, num_panels: int) -> bool:
    """Return whether the labels below the panel of an effect are rotated, because they would overlap."""
    if effect.scale != "category":
        return False
    longest = max(len(label) for _, label in effect.ticks)
    return len(effect.ticks) * (longest * _CHARACTER_WIDTH + 0.1) > panel_width(num_panels)


def label_size(effects: Sequence[Effect]) -> tuple[float, float]:
    """Return the width and height in inches that rotated labels need to the left of a panel, and below it."""
    rotated = [effect for effect in effects if is_rotated(effect, len(effects))]
    if not rotated:
        return 0.0, 0.0
    length = _CHARACTER_WIDTH * max(len(label) for effect in rotated for _, label in effect.ticks)
    first = 0.5 * panel_width(len(effects)) / max(len(effect.ticks) for effect in rotated)
    return math.cos(_ANGLE) * length - first + 0.1, math.sin(_ANGLE) * length


def style_factor(axes: Axes, effect: Effect, num_panels: int) -> None:
    """Format the axis of a factor. Labels that would overlap the label before them are left out."""
    if effect.scale == "log":
        axes.set_xscale("log")
        places = [place for line in effect.lines for place, _ in line]
        set_log_ticks(axes, "x", places)
    if not effect.ticks:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.6g}")
        return
    convert = math.log if effect.scale == "log" else float
    first, last = effect.ticks[0][0], effect.ticks[-1][0]
    margin = 0.5 if effect.scale == "category" else 0.05 * (convert(last) - convert(first))
    begin, end = convert(first) - margin, convert(last) + margin
    rotated = is_rotated(effect, num_panels)
    shown: list[tuple[float, str]] = []
    free = -math.inf  # position in inches from which there is room for a label
    for place, label in effect.ticks:
        centre = (convert(place) - begin) / (end - begin) * panel_width(num_panels)
        half = 0.1 if rotated else len(label) * _CHARACTER_WIDTH / 2 + 0.03
        if centre - half >= free:
            shown.append((place, label))
            free = centre + half
    axes.set_xticks([place for place, _ in shown], [label for _, label in shown], parse_math=False)
    axes.set_xticks([], minor=True)
    axes.set_xlim(*((math.exp(begin), math.exp(end)) if effect.scale == "log" else (begin, end)))
    if rotated:
        for text in axes.get_xticklabels():
            text.set(rotation=math.degrees(_ANGLE), horizontalalignment="right", rotation_mode="anchor")
