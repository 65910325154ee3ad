"""Functions that draw the effects of factors, the progress of a search, and parallel coordinates as SVG elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.pictures.effect_data import Effect, SearchProgress
from loopwright.experiment.sweep.pictures.factor_values import short_names, value_key, value_texts
from loopwright.records import as_number
from loopwright.records.report.axis import Axis, make_axis, number_text
from loopwright.records.report.builder import Element, element

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 12, 30
_MAX_VALUES = 8  # an axis with at most this many values has a tick at each of them
_DECADE = 9.99
_MAX_LABEL = 14  # characters of the label of a tick


def effect_chart(effect: Effect, objective: str, y_axis: Axis, size: tuple[int, int] = (400, 210)) -> Element:
    """Draw the objective against the values of a factor: the mean and the deviation of each value.

    Args:
        effect: data of the chart.
        objective: name of the objective.
        y_axis: vertical axis, which the charts of all factors share.
        size: width and height in pixels.
    """
    width, height = size
    places = [*(place for place, _ in effect.ticks), *(point.position for point in effect.points)]
    places += [place for line in effect.lines for place, _ in line]
    x_axis = make_axis(places, may_be_log=effect.scale == "log", log_range=1.0, margin=0.08)
    x, y = _scales(x_axis, y_axis, width, height)
    ticks = effect.ticks or tuple((value, number_text(value)) for value in x_axis.ticks)
    pale = [_path([(x(place), y(mean)) for place, mean in line], "line c0 faint") for line in effect.lines]
    means = [(x(point.position), y(point.mean)) for point in effect.points]
    bars = [
        element("path", d=f"M{x(each.position)} {y(each.mean - each.deviation)}V{y(each.mean + each.deviation)}",
                class_="line c0")
        for each in effect.points if each.deviation is not None
    ]  # fmt: skip
    described = ", ".join(f"{number_text(each.position)}: {number_text(each.mean)}" for each in effect.points)
    return element(
        "svg",
        element("title", f"{objective} by {effect.name}; means: {described}"),
        _frame(y_axis, y, width, height),
        [_tick(x(place), label, height) for place, label in ticks],
        pale,
        bars,
        _path(means, "line c0") if effect.is_ordered else None,
        [element("circle", cx=place, cy=value, r=3.5, class_="dot c0") for place, value in means],
        class_="chart",
        viewBox=f"0 0 {width} {height}",
        role="img",
    )


def search_chart(progress: SearchProgress, objective: str, size: tuple[int, int] = (820, 220)) -> Element:
    """Draw the objective of each proposal of a search, and the best value so far."""
    width, height = size
    shown = [each for each in progress.proposals if each.value is not None]
    numbers = [float(each.number) for each in progress.proposals]
    x_axis = make_axis(numbers, margin=0.02)
    y_axis = make_axis([each.value for each in shown if each.value is not None], num_ticks=4, may_be_log=True)
    x, y = _scales(x_axis, y_axis, width, height)
    marks: list[Any] = []
    for each in progress.proposals:
        name = element("title", f"proposal {each.number}: {each.state}")
        if each.value is None:
            marks.append(element("path", name, d=f"M{x(each.number) - 4} {height - _BOTTOM - 8}l8 8m0-8l-8 8",
                                 class_="mark failed"))  # fmt: skip
        else:
            style = "dot c0" if each.state == "done" else "dot c1 hollow"
            marks.append(element("circle", name, cx=x(each.number), cy=y(each.value), r=3.5, class_=style))
    steps = [(x(number), y(value)) for number, value in progress.best]
    return element(
        "svg",
        element("title", f"{objective} of {len(progress.proposals)} proposals, and the best value so far"),
        _frame(y_axis, y, width, height),
        [_tick(x(value), number_text(value), height) for value in x_axis.ticks if value == int(value)],
        element("path", d=_stairs(steps), class_="line c2") if steps else None,
        marks,
        class_="chart",
        viewBox=f"0 0 {width} {height}",
        role="img",
    )


def parallel_chart(index: SweepIndex, size: tuple[int, int] = (1160, 300)) -> Element | None:
    """Draw each group with a result as a line through its values of all factors and of the objective.

    Returns:
        The chart; None for fewer than three factors.
    """
    groups = [group for group in index.groups if group.mean is not None]
    if len(index.factors) < 3 or len(groups) < 2:
        return None
    width, height = size
    columns = [
        _column([group.values.get(factor.key) for group in groups], is_log=bool(factor.is_log))
        for factor in index.factors
    ]
    columns.append(_column([group.mean for group in groups], is_log=False))
    names = [*short_names(index.factors), index.objective.name]
    places = [round(70 + at * (width - 150) / (len(columns) - 1), 1) for at in range(len(columns))]
    top, bottom = 34, height - 16
    lines = []
    for row, group in enumerate(groups):
        heights = [round(bottom - column[0][row] * (bottom - top), 1) for column in columns]
        is_best = index.best is not None and index.best.group == group.number
        shares = " ".join(f"{column[0][row]:.4f}" for column in columns)
        path = "M" + "L".join(f"{x} {y}" for x, y in zip(places, heights, strict=True))
        lines.append(element("path", element("title", group.label), d=path, data_group=group.number, data_shares=shares,
                             class_=f"line {'c1' if is_best else 'c0 faint'}"))  # fmt: skip
    axes = []
    for at, (place, name, (_, ticks)) in enumerate(zip(places, names, columns, strict=True)):
        axes.append(element("text", name, x=place, y=16, class_="tick middle"))
        axes.append(element("line", x1=place, y1=top, x2=place, y2=bottom, class_="axis"))
        axes += [element("text", _short(label), x=place - 6, y=round(bottom - share * (bottom - top) + 3.5, 1),
                         class_="tick end") for share, label in ticks]  # fmt: skip
        axes.append(element("rect", x=place - 9, y=top, width=18, height=bottom - top, class_="brush", data_axis=at))
    return element(
        "svg",
        element("title", f"{len(groups)} groups by {', '.join(names)}"),
        lines,
        axes,
        class_="chart parallel",
        viewBox=f"0 0 {width} {height}",
        role="img",
        data_top=top,
        data_bottom=bottom,
    )


def _column(values: Sequence[Any], *, is_log: bool) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the position of each value from 0 to 1, and the ticks as pairs of a position and a label."""
    numbers = [None if isinstance(value, bool) else as_number(value) for value in values]
    known = [number for number in numbers if number is not None]
    if len(known) == len(values) and len(set(known)) > 1:
        axis = make_axis(known, may_be_log=True, log_range=1.0 if is_log else _DECADE, margin=0.0)
        ticks = sorted(set(known)) if len(set(known)) <= _MAX_VALUES else axis.ticks
        return [axis.position(number) for number in known], [(axis.position(tick), number_text(tick)) for tick in ticks]
    texts = value_texts(values)
    keys = list(dict.fromkeys(map(value_key, values)))
    share = {key: (at + 0.5) / len(keys) for at, key in enumerate(keys)}
    return [share[value_key(value)] for value in values], [(share[key], texts[key]) for key in keys]


def _scales(x_axis: Axis, y_axis: Axis, width: int, height: int) -> tuple[Any, Any]:
    def x(value: float) -> float:
        return round(_LEFT + x_axis.position(value) * (width - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        return round(height - _BOTTOM - y_axis.position(value) * (height - _TOP - _BOTTOM), 1)

    return x, y


def _frame(y_axis: Axis, y: Any, width: int, height: int) -> list[Element]:
    found = []
    for value in y_axis.ticks:
        found.append(element("line", x1=_LEFT, y1=y(value), x2=width - _RIGHT, y2=y(value), class_="grid"))
        found.append(element("text", number_text(value), x=_LEFT - 6, y=y(value) + 3.5, class_="tick end"))
    bottom = height - _BOTTOM
    return [*found, element("line", x1=_LEFT, y1=bottom, x2=width - _RIGHT, y2=bottom, class_="axis")]


def _tick(place: float, label: str, height: int) -> Element:
    return element("text", _short(label), x=place, y=height - _BOTTOM + 16, class_="tick middle")


def _short(label: str) -> str:
    return label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 1]}…"


def _path(points: Sequence[tuple[float, float]], style: str) -> Element:
    return element("path", d="M" + "L".join(f"{x} {y}" for x, y in points), class_=style)


def _stairs(points: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = points
    return f"M{x} {y}" + "".join(f"H{next_x}V{next_y}" for next_x, next_y in rest)
