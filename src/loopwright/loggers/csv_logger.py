"""`CSVLogger`: writes the metrics of a run to one CSV table, for pandas and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from loopwright.loggers.append_only import FileLogger, number

METRICS_FILE = "metrics.csv"


class CSVLogger(FileLogger):
    """Appends each value as a row to ``metrics.csv`` in the run directory, with the columns step, name and value.

    A metric that first appears late in a run needs no new column in this table. Each row is appended when its value is
    logged, so the table is complete even if the run is killed. This line of pandas makes a table with one row per step
    and one column per metric::

        pandas.read_csv("metrics.csv").pivot_table(index="step", columns="name", values="value")

    In a spreadsheet, use a pivot table with ``step`` as rows and ``name`` as columns.

    The file contains no timings, so that a repeated run writes an equal file. Values are written with all digits. NaN
    and infinite values are written as ``NaN``, ``Infinity`` or ``-Infinity``. When `log_metrics` returns, its rows have
    been passed to the operating system.

    Raises:
        SettingError: if the trainer is built without a ``run_dir``.
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
