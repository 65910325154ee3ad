"""Functions that write the results of validating many checkpoints as ``validations.csv`` and draw them."""

from __future__ import annotations

import csv
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopwright.records.curves import OTHER_COLOURS, TRAIN_COLOUR
from loopwright.records.run_record import checkpoint_step, is_checkpoint_name
from loopwright.regular_files import replace_file

VALIDATIONS_FILE = "validations.csv"
VALIDATIONS_PICTURE = "validations.png"
_MAX_PANELS = 12
_PANEL_INCHES = (4.4, 2.8)
_MARKERS = ("o", "s", "^", "D", "v")
_GREY = "#595959"

Row = Mapping[str, Any]  # "checkpoint", "dataloader", and "metrics" with the metrics by name


def write_validations(run_dir: Path, rows: Sequence[Row]) -> None:
    """Write one line for each checkpoint and dataloader. Numbers have all their digits.

    The columns are ``checkpoint``, ``step``, ``dataloader`` and the metrics without the name of the dataloader. The
    step is empty if the name of the checkpoint does not contain it.

    Args:
        run_dir: run directory.
        rows: checkpoint, dataloader and metrics of each validation.

    Raises:
        OSError: if the file cannot be written.
    """
    names = list(dict.fromkeys(_short(name, row) for row in rows for name in row["metrics"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["checkpoint", "step", "dataloader", *names])
    for row in rows:
        values = {_short(name, row): _number(value) for name, value in row["metrics"].items()}
        step = _step(row)
        writer.writerow(
            [
                row["checkpoint"],
                "" if step is None else step,
                row["dataloader"],
                *(values.get(name, "") for name in names),
            ]
        )
    replace_file(run_dir / VALIDATIONS_FILE, text.getvalue().encode())


def draw_validations(run_dir: Path, rows: Sequence[Row]) -> Path | None:
    """Draw each metric against the step of the checkpoint, with a line for each dataloader.

    Args:
        run_dir: run directory, which will contain ``validations.png``.
        rows: checkpoint, dataloader and metrics of each validation.

    Returns:
        Path of the picture; None if fewer than two checkpoints have a step.

    Raises:
        OSError: if the picture cannot be written.
    """
    panels = _panels(rows)
    if len({step for panel in panels.values() for line in panel.values() for step, _ in line}) < 2:
        return None
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # settings of the user could make matplotlib run programs such as latex
        warnings.simplefilter("ignore")  # matplotlib warns if its font lacks a character
        shown = list(panels.items())[:_MAX_PANELS]
        num_columns = min(len(shown), 3)
        num_rows = math.ceil(len(shown) / num_columns)
        size = (num_columns * _PANEL_INCHES[0], num_rows * _PANEL_INCHES[1])
        figure = Figure(figsize=size, dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        for at, (name, lines) in enumerate(shown):
            _draw_panel(figure.add_subplot(num_rows, num_columns, at + 1), name, lines)
        figure.savefig(picture, format="png", metadata={"Software": None})
    replace_file(run_dir / VALIDATIONS_PICTURE, picture.getvalue())
    return run_dir / VALIDATIONS_PICTURE


def _draw_panel(axes: Any, name: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    colours = (TRAIN_COLOUR, *OTHER_COLOURS)
    for at, (source, points) in enumerate(lines.items()):
        steps, values = zip(*sorted(points), strict=True)
        axes.plot(
            steps,
            [value if math.isfinite(value) else math.nan for value in values],
            color=colours[at % len(colours)],
            marker=_MARKERS[at % len(_MARKERS)],
            markersize=4,
            linewidth=1.3,
            label=f" {source}" if source.startswith("_") else source,
        )
    axes.set_title(name, size=11, loc="left", parse_math=False)
    axes.set_xlabel("step of the checkpoint", size=9, color=_GREY)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.6g}")
    axes.tick_params(labelsize=8, colors=_GREY)
    axes.grid(color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(lines) > 1:
        for text in axes.legend(fontsize=7.5, frameon=False).get_texts():
            text.set_parse_math(False)


def _panels(rows: Sequence[Row]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the points of each metric by the name of the dataloader. Checkpoints without a step are left out."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        step = _step(row)
        for name, value in row["metrics"].items() if step is not None else ():
            assert step is not None
            panels.setdefault(_short(name, row), {}).setdefault(row["dataloader"], []).append((step, value))
    return panels


def _short(name: str, row: Row) -> str:
    return name.removeprefix(f"{row['dataloader']}/")


def _step(row: Row) -> int | None:
    name = re.split(r"[/\\]", str(row["checkpoint"]).rstrip("/"))[-1]
    return checkpoint_step(name) if is_checkpoint_name(name) else None


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
