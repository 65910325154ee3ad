"""The text and tables that a run or a sweep prints at its end."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loopwright.experiment.command.command_line import words_on
from loopwright.experiment.command.speech import tell
from loopwright.records import CURVES_FILE

_WIDE = 200  # columns of a table that is not printed to a terminal, so that nothing is cut


_TRAINING = ("train/", "lr")  # prefixes of metrics that are not measured by a validation


def closing_text(
    headline: str,
    metrics: Mapping[str, float],
    best: Mapping[str, Any] | None,
    directory: Path,
    commands: Mapping[str, str],
) -> str:
    """Return the headline, the final and best metrics, the paths of the results, and commands for the next step."""
    lines = [headline]
    final = [f"{name} {show(value)}" for name, value in metrics.items() if not name.startswith(_TRAINING)]
    final = final or [f"{name} {show(value)}" for name, value in metrics.items()]
    if final:
        lines.append(f"Final: {', '.join(final)}")
    if best is not None:
        lines.append(f"Best: {best['name']} {show(best['value'])} at step {best['step']:,}")
    if (directory / CURVES_FILE).is_file():
        lines.append(f"Curves: {directory / CURVES_FILE}")
    lines.append(f"Run directory: {directory}")
    lines += [f"{label}: {command}" for label, command in commands.items()]
    return "\n".join(lines)


def command_on(verb: str, directory: Path, trusted: Sequence[str]) -> str:
    """Return the shell command for a verb on a run directory, with ``--trust`` for the packages the run trusted."""
    return shlex.join(["loopwright", *words_on(verb, directory, trusted)])


def show(value: object) -> str:
    """Format a metric with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of validations: checkpoint, dataloader, metrics."""
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


def print_sweep(jobs: Sequence[Mapping[str, Any]], objective: str, directory: Path) -> None:
    """Print a table of the jobs of a sweep (number, overrides, state, objective), and the errors below it."""
    table = Table("job", "overrides", "state")
    table.add_column(objective, justify="right")
    for job in jobs:
        value = job["objective"]
        table.add_row(str(job["number"]), job["label"], job["state"], "nan" if value is None else show(value))
    print_table(table)
    for job in jobs:
        if job["error"]:
            tell(f"job {job['number']}: {job['error']}")
    num_done = sum(job["state"] == "completed" for job in jobs)
    tell(f"Done: {num_done} of {len(jobs)} jobs completed.\nSweep directory: {directory}")


def print_table(table: Table) -> None:
    """Print a table to standard output. If that is not a terminal, print it wide enough that nothing is cut."""
    width = None if sys.stdout.isatty() else _WIDE
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    with console.capture() as rendered:
        console.print(table)
    tell(rendered.get().rstrip("\n"))


def _short(name: str, dataloader: str) -> str:
    return name.removeprefix(f"{dataloader}/")
