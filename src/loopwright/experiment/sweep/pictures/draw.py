"""`draw_sweep`, which draws the learning curves, the effects of factors and the progress of a search as PNG files."""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.pictures.effect_data import Effect, SearchProgress, effects, search_progress
from loopwright.experiment.sweep.pictures.factor_values import short_names
from loopwright.experiment.sweep.pictures.picture_data import (
    CurvePanel,
    LearningCurves,
    learning_curves,
    needs_log,
    read_points,
)
from loopwright.experiment.sweep.pictures.picture_style import (
    CROSS,
    GREY,
    draw_legend,
    job_counts,
    label_size,
    legend_size,
    line_style,
    make_figure,
    num_columns_of,
    style_factor,
    style_values,
    write_title,
)
from loopwright.records.curves import OTHER_COLOURS, TRAIN_COLOUR
from loopwright.regular_files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_PICTURE = "curves.png"
EFFECTS_PICTURE = "effects.png"
SEARCH_PICTURE = "search.png"

_BEST_COLOUR = OTHER_COLOURS[0]
_PALE, _CONTEXT = "#B5B5B5", "#D5D5D5"
_MAX_LEGEND = 12  # maximum number of entries of a legend
_MAX_EFFECTS = 12  # maximum number of panels of effects


def draw_sweep(directory: Path, index: SweepIndex) -> list[Path]:
    """Draw the pictures of a sweep as PNG files in its directory.

    ``curves.png`` shows the objective of each job over its steps. ``effects.png`` shows the objective against the
    values of each factor. It is written if the sweep has a factor and a result. ``search.png`` shows the objective of
    each proposal. It is written if the sweep is a search.

    Args:
        directory: directory of the sweep.
        index: index of the sweep.

    Returns:
        The paths of the written pictures. The list is empty if no job is done, pruned or failed.

    Raises:
        OSError: if a picture cannot be written.
    """
    if not any(job.state in ("done", "pruned", "failed") for job in index.jobs):
        return []
    drawings: dict[str, Callable[[], Figure]] = {}
    curves = learning_curves(index, read_points(directory, index))
    found, progress = effects(index), search_progress(index)
    if curves.panels:
        drawings[CURVES_PICTURE] = lambda: _draw_curves(directory, index, curves)
    if found:
        drawings[EFFECTS_PICTURE] = lambda: _draw_effects(directory, index, found)
    if progress is not None:
        drawings[SEARCH_PICTURE] = lambda: _draw_search(directory, index, progress)
    for name, draw in drawings.items():
        replace_file(directory / name, _png(draw))
    return [directory / name for name in drawings]


def _png(draw: Callable[[], Figure]) -> bytes:
    # The import of matplotlib takes half a second. At the top of the module, it would delay the start of every command.
    import matplotlib

    picture = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # settings of the user could make matplotlib run programs such as latex
        warnings.simplefilter("ignore")  # matplotlib warns if its font lacks a character
        draw().savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _draw_curves(directory: Path, index: SweepIndex, curves: LearningCurves) -> Figure:
    labels = curves.labels if 1 < len(curves.labels) <= _MAX_LEGEND else ()
    num_legend_columns, legend_height = legend_size(labels, len(curves.panels))
    figure, panels = make_figure(len(curves.panels), legend_height=legend_height, shares_x=True)
    by = f"by {short_names(index.factors)[0]}" if index.factors else ""
    num_more = curves.num_more_values
    more = [f"and {num_more} more value{'s' if num_more > 1 else ''}"] if num_more else []
    write_title(figure, directory, index, [by, *more, job_counts(index, " (×)")])
    drawn = [curve for panel in curves.panels for curve in panel.curves]
    last_step = max(1, *(curve.points[-1][0] for curve in drawn))
    others = curves.panels if len(curves.labels) == 1 else ()
    for axes, panel in zip(panels, curves.panels, strict=True):
        for other in others:
            if other is not panel:
                _draw_context(axes, other)
        _draw_panel(axes, panel, curves)
        axes.set_title(panel.title, size=10, loc="left", parse_math=False)
        axes.set_xlim(0, last_step * 1.02)
        axes.locator_params(axis="x", integer=True, nbins=5)
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    for axes in panels[-(num_columns_of(len(panels))) :]:
        axes.set_xlabel("step", size=9, color=GREY)
    style_values(panels, [value for curve in drawn for _, value in curve.points], is_log=curves.is_log)
    draw_legend(figure, labels, num_legend_columns)
    return figure


def _draw_panel(axes: Axes, panel: CurvePanel, curves: LearningCurves) -> None:
    """Draw the curves of a panel. The curve of a job is thin and pale if the mean of its group is drawn."""
    with_mean = {mean.group for mean in panel.means}
    for curve in panel.curves:
        strength = {"linewidth": 0.9, "alpha": 0.45} if curve.group in with_mean else {"linewidth": 1.6}
        _draw_line(axes, curve.points, line_style(curves.styles[curve.group]) | strength)
        if curve.is_failed and curve.end is not None:
            axes.plot([curve.end[0]], [curve.end[1]], markersize=7, zorder=5, **CROSS)
    for mean in panel.means:
        _draw_line(axes, mean.points, line_style(curves.styles[mean.group]) | {"linewidth": 2.2})


def _draw_context(axes: Axes, panel: CurvePanel) -> None:
    """Draw the curves of another panel in grey, so that the panels of a sweep with one factor can be compared."""
    for curve in panel.means or [curve for curve in panel.curves if not curve.is_failed]:
        _draw_line(axes, curve.points, {"color": _CONTEXT, "linewidth": 1.0, "zorder": 1.5})


def _draw_line(axes: Axes, points: Sequence[tuple[int, float]], style: dict[str, Any]) -> None:
    """Draw a line with gaps at values that are not finite. A line of one point has a marker."""
    values = [value if math.isfinite(value) else math.nan for _, value in points]
    axes.plot([step for step, _ in points], values, marker="o" if len(points) == 1 else "", markersize=5, **style)


def _draw_effects(directory: Path, index: SweepIndex, found: Sequence[Effect]) -> Figure:
    shown = found[:_MAX_EFFECTS]
    figure, panels = make_figure(len(shown), label_size=label_size(shown))
    num_more, num_failed = len(found) - len(shown), sum(job.state == "failed" for job in index.jobs)
    parts = [f"and {num_more} more factor{'s' if num_more > 1 else ''}"] if num_more else []
    parts += [f"{num_failed} failed job{'s' if num_failed > 1 else ''} left out"] if num_failed else []
    write_title(figure, directory, index, ["by factor" if len(found) > 1 else f"by {found[0].name}", *parts])
    values = [value for effect in shown for line in effect.lines for _, value in line]
    is_log = needs_log(values, index.objective.mode)
    style_values(panels, values, is_log=is_log)
    for axes, effect in zip(panels, shown, strict=True):
        _draw_effect(axes, effect)
        style_factor(axes, effect, len(shown))
    if is_log:  # the lower end of an error bar can be negative, and would extend the axis
        highest = max([*values, *(point.mean + (point.deviation or 0) for effect in shown for point in effect.points)])
        margin = min(max(1.2, (highest / min(values)) ** 0.06), 1e3)
        panels[0].set_ylim(min(values) / margin, highest * margin)
    return figure


def _draw_effect(axes: Axes, effect: Effect) -> None:
    axes.set_title(effect.name, size=10, loc="left", parse_math=False)
    for line in effect.lines:
        style = "o" if effect.is_binned else "o-"
        x, y = [place for place, _ in line], [mean for _, mean in line]
        axes.plot(x, y, style, color=_PALE, markersize=3, linewidth=0.9)
    deviations = [point.deviation for point in effect.points]
    has_deviation = any(deviation is not None for deviation in deviations)
    axes.errorbar(
        [point.position for point in effect.points],
        [point.mean for point in effect.points],
        yerr=[deviation or 0.0 for deviation in deviations] if has_deviation else None,
        color=TRAIN_COLOUR,
        marker="o",
        markersize=5.5,
        linewidth=1.8,
        linestyle="-" if effect.is_ordered else "",
        elinewidth=1.2,
        capsize=3,
        zorder=4,
    )
    over = "bins of groups" if effect.is_binned else "seeds" if effect.is_over_seeds else "groups"
    notes = ["log scale"] if effect.scale == "log" else []
    notes += [f"mean ± s.d. over {over}"] if has_deviation else []
    axes.set_xlabel("  ·  ".join(notes), size=8.5, color=GREY)


def _draw_search(directory: Path, index: SweepIndex, progress: SearchProgress) -> Figure:
    figure, (axes,) = make_figure(1)
    last = progress.proposals[-1].number
    parts = [f"best {progress.best[-1][1]:.4g} at proposal {progress.best_number}"] if progress.best else []
    counts = Counter(proposal.state for proposal in progress.proposals)
    by_state = ", ".join(f"{counts[state]} {state}" for state in ("done", "pruned", "failed") if counts[state])
    write_title(figure, directory, index, ["by proposal", *parts, by_state])
    if progress.best:
        steps = [*progress.best, (last, progress.best[-1][1])]
        x, y = [number for number, _ in steps], [value for _, value in steps]
        axes.step(x, y, where="post", color=_BEST_COLOUR, linewidth=1.8, label="best so far")
    values = []
    for state, face in (("done", TRAIN_COLOUR), ("pruned", "none")):
        pairs = [(each.number, each.value) for each in progress.proposals if each.state == state]
        known = [(number, value) for number, value in pairs if value is not None]
        if known:
            x, y = [number for number, _ in known], [value for _, value in known]
            axes.plot(x, y, "o", color=TRAIN_COLOUR, markerfacecolor=face, markersize=5.5, zorder=3, label=state)
            values += y
    failed = [each.number for each in progress.proposals if each.state == "failed"]
    if failed:
        axes.plot(failed, [0] * len(failed), transform=axes.get_xaxis_transform(), label="failed", zorder=5, **CROSS)
    axes.set_xlim(-0.5, last + 0.5)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("proposal", size=9, color=GREY)
    style_values([axes], values, is_log=needs_log(values, index.objective.mode))
    axes.legend(loc="lower right", bbox_to_anchor=(1.01, 1.0), ncols=4, fontsize=8.5, frameon=False, borderpad=0)
    return figure
