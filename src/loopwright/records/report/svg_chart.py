"""`line_chart`, which draws series as an SVG element that needs no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from loopwright.records.report.axis import Axis, make_axis, number_text
from loopwright.records.report.builder import Element, element
from loopwright.records.report.downsample import Point

NUM_COLOURS = 6  # classes c0 to c5 of the style; the dashes d0 to d3 change when all colours are used
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 24, 10, 26
_FEW_POINTS = 40  # a line with at most this many points shows each of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a chart.

    Attributes:
        name: name in the legend.
        points: points in ascending order of x. The line has a gap where y is None.
        style: index of the colour and the dashes.
        is_faint: whether the line is drawn thin and pale.
    """

    name: str
    points: Sequence[Point]
    style: int = 0
    is_faint: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A mark of a chart.

    Attributes:
        kind: "best" for a ring at a value, "checkpoint" for a tick on the axis, "resume" for a vertical line, or
            "failed" for a cross.
        x: position.
        y: value; None for marks on the axis.
        text: description for a reader who cannot see the chart.
    """

    kind: str
    x: float
    y: float | None = None
    text: str = ""


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    marks: Sequence[Mark] = (),
    x_axis: Axis | None = None,
    y_axis: Axis | None = None,
    may_be_log: bool = True,
    size: tuple[int, int] = (460, 210),
) -> Element:
    """Draw lines and marks.

    Args:
        title: description of the chart for a reader who cannot see it.
        lines: lines to draw. The first is drawn on top.
        marks: marks to draw.
        x_axis: horizontal axis; None: it contains all points.
        y_axis: vertical axis; None: it contains all points.
        may_be_log: whether the vertical axis is logarithmic if the ratio of its positive values exceeds 20.
        size: width and height in pixels.
    """
    width, height = size
    x_axis = x_axis or make_axis([x for line in lines for x, _ in line.points], margin=0.0)
    values = [y for line in lines for _, y in line.points if y is not None]
    y_axis = y_axis or make_axis(values, num_ticks=4, may_be_log=may_be_log)
    frame = _Frame(x_axis, y_axis, width, height)
    return element(
        "svg",
        element("title", title),
        *_ticks(frame),
        *(_mark(frame, mark) for mark in marks if mark.kind in ("checkpoint", "resume")),
        *(_line(frame, line) for line in reversed(lines)),
        *(_mark(frame, mark) for mark in marks if mark.kind not in ("checkpoint", "resume")),
        class_="chart",
        viewBox=f"0 0 {width} {height}",
        role="img",
    )


def line_class(style: int) -> str:
    """Return the classes for the colour and the dashes of a line. From the fifth line on, the dashes also differ."""
    return f"c{style % NUM_COLOURS} d{0 if style < 4 else 1 + (style - 4) % 3}"


def legend(lines: Sequence[Line]) -> Element:
    """Return the names of the lines, each with a sample of its line."""
    return element("ul", [_entry(line) for line in lines], class_="legend")


def _entry(line: Line) -> Element:
    sample = element("line", x1=0, y1=5, x2=22, y2=5, class_=f"line {line_class(line.style)}")
    return element(
        "li", element("svg", sample, viewBox="0 0 22 10", width=22, height=10, aria_hidden="true"), line.name
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    x_axis: Axis
    y_axis: Axis
    width: int
    height: int

    def x(self, value: float) -> float:
        return round(_LEFT + self.x_axis.position(value) * (self.width - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        return round(self.height - _BOTTOM - self.y_axis.position(value) * (self.height - _TOP - _BOTTOM), 1)


def _ticks(frame: _Frame) -> list[Element]:
    right, bottom = frame.width - _RIGHT, frame.height - _BOTTOM
    found = []
    for value in frame.y_axis.ticks:
        y = frame.y(value)
        found.append(element("line", x1=_LEFT, y1=y, x2=right, y2=y, class_="grid"))
        found.append(element("text", number_text(value), x=_LEFT - 6, y=y + 3.5, class_="tick end"))
    for value in frame.x_axis.ticks:
        found.append(element("text", number_text(value), x=frame.x(value), y=bottom + 16, class_="tick middle"))
        found.append(element("line", x1=frame.x(value), y1=bottom, x2=frame.x(value), y2=bottom + 4, class_="axis"))
    return [*found, element("line", x1=_LEFT, y1=bottom, x2=right, y2=bottom, class_="axis")]


def _line(frame: _Frame, line: Line) -> Element:
    style = f"line {line_class(line.style)}{' faint' if line.is_faint else ''}"
    runs = [list(run) for is_gap, run in groupby(line.points, key=lambda point: point[1] is None) if not is_gap]
    shapes: list[Any] = []
    for run in runs:
        places = [(frame.x(x), frame.y(y)) for x, y in run if y is not None]
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
        shapes.append(element("path", d=path, class_=style))
        if len(line.points) <= _FEW_POINTS or len(run) == 1:
            shapes += [element("circle", cx=x, cy=y, r=2.2, class_=f"dot {line_class(line.style)}") for x, y in places]
    gaps = [x for x, y in line.points if y is None]
    if gaps:
        shapes.append(_mark(frame, Mark(kind="gap", x=gaps[0], text=f"{line.name} is not finite from here")))
    return element("g", shapes)


def _mark(frame: _Frame, mark: Mark) -> Element:
    x, bottom = frame.x(mark.x), frame.height - _BOTTOM
    name = element("title", mark.text) if mark.text else None
    if mark.kind == "checkpoint":
        return element("path", name, d=f"M{x:g} {bottom:g}v-5", class_="mark checkpoint")
    if mark.kind in ("resume", "gap"):
        return element("path", name, d=f"M{x:g} {bottom:g}V{_TOP}", class_=f"mark {mark.kind}")
    y = frame.y(mark.y) if mark.y is not None else float(bottom)
    if mark.kind == "failed":
        return element("path", name, d=f"M{x - 4:g} {y - 4:g}l8 8m0-8l-8 8", class_="mark failed")
    return element("circle", name, cx=x, cy=y, r=5, class_="mark best")
