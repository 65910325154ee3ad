"""`CSVLogger`: the metrics of a run as one table, for pandas and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from loopwright.loggers.append_only import FileLogger, number

METRICS_FILE = "metrics.csv"


class CSVLogger(FileLogger):
    """Appends each value to ``metrics.csv`` in the run directory: a long table with columns step, name and value.

    Long, not wide: a metric that first appears late needs no new column, so that rows are only ever appended, and a
    run that is killed leaves the table whole. A row per step and a column per metric is one call away::

        pandas.read_csv("metrics.csv").pivot_table(index="step", columns="name", values="value")

    and in a spreadsheet a pivot table of rows step, columns name. The file holds what the same run would give again,
    no clocks; values keep all their digits, and what is not finite is ``NaN``, ``Infinity`` or ``-Infinity``. The
    system has the rows when a call returns.

    Raises:
        SettingError: when the trainer is built without a ``run_dir``.
    """

    file_names = (METRICS_FILE,)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Append a row for each value."""
        rows = (_row(step, name, number(float(value))) for name, value in metrics.items())
        self.files.append(METRICS_FILE, rows, header=_row("step", "name", "value"))


def _row(*cells: object) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
