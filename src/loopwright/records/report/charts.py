"""`Charts`, which makes the figures of a report and collects the data that its script draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loopwright.records.panels import RATE, Panel
from loopwright.records.report.axis import number_text
from loopwright.records.report.builder import Element, element
from loopwright.records.report.downsample import Point, downsample
from loopwright.records.report.svg_chart import Line, Mark, legend, line_chart

_MAX_POINTS = 2000  # of a series in the data of the script
_MAX_TOTAL_POINTS = 24_000  # of all series in the data of the script
_MAX_SVG_POINTS = 300
_MAX_ROWS = 60  # of the table below a chart
_MIN_POINTS = 100
_LOG_RANGE = 20.0


class Charts:
    """Makes figures. Each figure has an SVG chart, its numbers as a table, and data for the script.

    Args:
        num_series: number of series on the page. The more there are, the fewer points are kept of each.
    """

    def __init__(self, num_series: int) -> None:
        self._max_points = max(_MIN_POINTS, min(_MAX_POINTS, _MAX_TOTAL_POINTS // max(1, num_series)))
        self.data: dict[str, Any] = {}

    def figure(
        self, panel: Panel, styles: Mapping[str, int], marks: Sequence[Mark] = (), *, has_numbers: bool = True
    ) -> Element:
        """Return the figure of a panel.

        Args:
            panel: series to draw.
            styles: index of the colour and the dashes of each source.
            marks: marks of the chart.
            has_numbers: whether the figure contains a table of its values.
        """
        name = f"chart{len(self.data)}"
        lines, series = [], []
        for source, one in panel.series.items():
            style, shown = styles.get(source, 0), source or panel.title
            lines.append(Line(name=shown, points=downsample(one.steps, one.values, _MAX_SVG_POINTS), style=style))
            series.append(_json_series(shown, style, downsample(one.steps, one.values, self._max_points)))
        values = [y for line in lines for _, y in line.points if y is not None]
        best = next((mark for mark in marks if mark.kind == "best" and mark.y is not None), None)
        self.data[name] = {
            "series": series,
            "is_log": panel.title != RATE
            and bool(values)
            and min(values) > 0
            and max(values) / min(values) > _LOG_RANGE,
            "marks": [[mark.x, mark.kind] for mark in marks if mark.kind in ("checkpoint", "resume")],
            "best": None if best is None else [best.x, best.y],
        }
        return element(
            "figure",
            element("h3", panel.title),
            line_chart(_description(panel), lines, marks=marks, may_be_log=panel.title != RATE),
            element("div", class_="plot"),
            legend(lines),
            _numbers(panel) if has_numbers else None,
            data_chart=name,
        )


def _json_series(name: str, style: int, points: Sequence[Point]) -> dict[str, Any]:
    rounded = [None if y is None else float(f"{y:.6g}") for _, y in points]
    return {"name": name, "style": style, "x": [x for x, _ in points], "y": rounded}


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
