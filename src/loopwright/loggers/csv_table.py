"""`CSVLogger`: the metrics of a run as one table, for pandas and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopwright.hooks import Logger
from loopwright.loggers.run_files import RunFiles, number

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

METRICS_FILE = "metrics.csv"


class CSVLogger(Logger):
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

    def __init__(self) -> None:
        self._files: RunFiles | None = None

    def setup(self, trainer: Trainer) -> None:
        """Take the trainer's run directory; the file is made with its first row."""
        self.finalize()
        self._files = RunFiles(trainer.run_dir, METRICS_FILE)

    def on_enter_fit(
        self, trainer: Trainer, stack: ExitStack, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback
    ) -> None:
        """Keep the file open for as long as the fit lasts."""
        self._table().keep_open()
        stack.callback(self.finalize)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Append a row for each value."""
        rows = (_row(step, name, number(float(value))) for name, value in metrics.items())
        self._table().append(METRICS_FILE, rows, header=_row("step", "name", "value"))

    def finalize(self) -> None:
        """Close the file."""
        if self._files is not None:
            self._files.close()

    def _table(self) -> RunFiles:
        assert self._files is not None, "a trainer sets its loggers up before it logs"
        return self._files


def _row(*cells: object) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
