"""`Charts`, which makes the figures of a report and collects the data that its script draws."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from loopwright.records.panels import RATE, Panel
from loopwright.records.report.axis import Axis, make_axis, number_text
from loopwright.records.report.builder import Element, element
from loopwright.records.report.downsample import Point, downsample
from loopwright.records.report.svg_chart import Line, Mark, legend, line_chart

_MAX_POINTS = 2000  # of a series in the data of the script
_MAX_TOTAL_POINTS = 24_000  # of all series in the data of the script
_MAX_SVG_POINTS = 300
_MAX_ROWS = 60  # of the table below a chart
_MIN_POINTS = 24
_LOG_RANGE = 20.0


class Charts:
    """Makes figures. Each figure has an SVG chart, its numbers as a table, and data for the script.

    Args:
        panels: panels that will be drawn. The more series they have, the fewer points are kept of each. All charts
            have one horizontal axis, so that a step has the same place in each of them.
    """

    def __init__(self, panels: Sequence[Panel]) -> None:
        num_series = sum(len(panel.series) for panel in panels)
        steps = [
            step for panel in panels for one in panel.series.values() for step in (*one.steps[:1], *one.steps[-1:])
        ]
        self._x_axis = make_axis(steps, margin=0.0)
        self._max_points = max(_MIN_POINTS, min(_MAX_POINTS, _MAX_TOTAL_POINTS // max(1, num_series)))
        self.data: dict[str, Any] = {}

    def figure(
        self,
        panel: Panel,
        styles: Mapping[str, int],
        marks: Sequence[Mark] = (),
        *,
        faint: Collection[str] = (),
        y_axis: Axis | None = None,
        has_numbers: bool = True,
    ) -> Element:
        """Return the figure of a panel.

        Args:
            panel: series to draw.
            styles: index of the colour and the dashes of each source.
            marks: marks of the chart.
            faint: sources whose lines are thin and pale. The legend does not contain them.
            y_axis: vertical axis, which several charts share; None: the axis contains all points of the panel.
            has_numbers: whether the figure contains a table of its values.
        """
        name = f"chart{len(self.data)}"
        lines, series = [], []
        for source, one in panel.series.items():
            style, shown = styles.get(source, 0), source or panel.title
            is_faint = source in faint
            points = downsample(one.steps, one.values, min(_MAX_SVG_POINTS, self._max_points))
            lines.append(Line(name=shown, points=points, style=style, is_faint=is_faint))
            points = downsample(one.steps, one.values, self._max_points)
            series.append(_json_series(shown, style, points, is_faint=is_faint))
        values = [y for line in lines for _, y in line.points if y is not None]
        is_log = _needs_log(panel, values) if y_axis is None else y_axis.is_log
        best = next((mark for mark in marks if mark.kind == "best" and mark.y is not None), None)
        self.data[name] = {
            "series": series,
            "is_log": is_log,
            "marks": [[mark.x, mark.kind] for mark in marks if mark.kind in ("checkpoint", "resume")],
            "best": None if best is None else [best.x, best.y],
            "failed": [[mark.x, mark.y] for mark in marks if mark.kind == "failed"],
            "x_range": [self._x_axis.low, self._x_axis.high],
            "y_range": None if y_axis is None else [y_axis.low, y_axis.high],
        }
        return element(
            "figure",
            element("figcaption", panel.title),
            line_chart(
                _description(panel),
                lines,
                marks=marks,
                x_axis=self._x_axis,
                y_axis=y_axis,
                may_be_log=panel.title != RATE,
            ),
            element("div", class_="plot"),
            legend([line for line in lines if not line.is_faint] or lines[:1]),
            _numbers(panel) if has_numbers else None,
            data_chart=name,
        )


def _needs_log(panel: Panel, values: Sequence[float]) -> bool:
    return panel.title != RATE and bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_RANGE


def _json_series(name: str, style: int, points: Sequence[Point], *, is_faint: bool) -> dict[str, Any]:
    rounded = [None if y is None else float(f"{y:.6g}") for _, y in points]
    return {"name": name, "style": style, "x": [x for x, _ in points], "y": rounded, "is_faint": is_faint}


def _description(panel: Panel) -> str:
    last = ", ".join(f"{source or panel.title} {number_text(one.values[-1])}" for source, one in panel.series.items())
    return f"{panel.title} by step; last values: {last}"


def _numbers(panel: Panel) -> Element:
    """Return a table with the values of a panel. Of many steps, the table contains equally many at equal distances."""
    steps = sorted({step for one in panel.series.values() for step in one.steps})
    every = max(1, -(-len(steps) // _MAX_ROWS))
    kept = sorted({*steps[::every], steps[-1]}) if steps else []
    columns = [dict(zip(one.steps, one.values, strict=True)) for one in panel.series.values()]
    rows = [
        element(
            "tr",
            element("td", f"{step:,}", class_="number"),
            [element("td", number_text(column[step]) if step in column else "", class_="number") for column in columns],
        )
        for step in kept
    ]
    names = [element("th", source or panel.title, class_="number", scope="col") for source in panel.series]
    head = element("thead", element("tr", element("th", "step", class_="number", scope="col"), names))
    count = f"{len(kept)} of {len(steps):,} steps" if len(kept) < len(steps) else f"{len(steps):,} steps"
    return element(
        "details",
        element("summary", f"Numbers ({count})"),
        element("table", head, element("tbody", rows), class_="data"),
    )
