"""Functions that print tables to standard output, and format metrics."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from loopwright.experiment.console.messages import tell

_WIDE = 200  # maximum width of a table in characters if standard output is not a terminal


def show(value: object) -> str:
    """Format a metric with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table with one row for each validation: its checkpoint, its dataloader and its metrics."""
    if not rows:
        return
    # "val/loss" and "val/extra/loss" share the column "loss". Another column names the dataloader.
    columns = list(dict.fromkeys(_short(name, row["dataloader"]) for row in rows for name in row["metrics"]))
    table = Table("checkpoint", "dataloader")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        metrics = {_short(name, row["dataloader"]): value for name, value in row["metrics"].items()}
        cells = [show(metrics[column]) if column in metrics else "" for column in columns]
        table.add_row(row["checkpoint"], row["dataloader"], *cells)
    print_table(table)


def print_table(table: Table) -> None:
    """Print a table to standard output.

    If standard output is not a terminal, the table can be up to 200 characters wide.
    """
    width = None if sys.stdout.isatty() else _WIDE
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    with console.capture() as rendered:
        console.print(table)
    tell(rendered.get().rstrip("\n"))


def _short(name: str, dataloader: str) -> str:
    return name.removeprefix(f"{dataloader}/")
