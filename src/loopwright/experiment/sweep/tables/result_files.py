"""Functions that write the results of a sweep to files: ``sweep.csv``, ``sweep.md`` and ``best.yaml``."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loopwright.errors import printable
from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.tables.best_file import BEST_FILE, BestFileSettings, best_text
from loopwright.experiment.sweep.tables.cell_text import is_number, value_text
from loopwright.experiment.sweep.tables.closing_lines import (
    CSV_FILE,
    MARKDOWN_FILE,
    failure_lines,
    next_steps,
    summary_line,
    tie_line,
)
from loopwright.experiment.sweep.tables.group_table import best_value, group_table, metric_names
from loopwright.experiment.sweep.tables.results_table import BEST_MARK, FEW_SEEDS
from loopwright.regular_files import replace_file


def write_tables(
    directory: Path, index: SweepIndex, *, num_threads: int | None = None, best_file: BestFileSettings | None = None
) -> None:
    """Write ``sweep.csv`` and ``sweep.md``, and ``best.yaml`` if there is a best group. No file is removed.

    Args:
        directory: directory of the sweep.
        index: index of the sweep.
        num_threads: number of threads of the jobs; None if it is unknown.
        best_file: what `best_text` needs to know about the configuration; None: ``best.yaml`` is not written.

    Raises:
        OSError: if a file cannot be written.
    """
    replace_file(directory / CSV_FILE, csv_text(index).encode())
    replace_file(directory / MARKDOWN_FILE, markdown_text(index, str(directory), num_threads=num_threads).encode())
    best = None if best_file is None else best_text(index, num_threads, best_file)
    if best is not None:
        replace_file(directory / BEST_FILE, best.encode())


def csv_text(index: SweepIndex) -> str:
    """Return a table with one row for each job, with all digits. Unknown and infinite values are empty cells."""
    keys = [factor.key for factor in index.factors]
    metrics, objective = metric_names(index), index.objective.name
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    last = ("best", "best_step", "global_step", "seconds", "weights_sha256", "error", "directory")
    rows.writerow(_printable(["job", "group", "seed", *keys, "state", objective, *metrics, *last]))
    for job in index.jobs:
        values = index.groups[job.group].values
        best = best_value(job, objective)
        best_step = None if best is None or job.best is None else job.best.get("step")
        cells = _printable(
            [
                *(job.number, job.group, job.seed),
                *(value_text(values[key]) if key in values else "" for key in keys),
                job.state,
                *map(_cell, (job.objective, *(job.metrics.get(name) for name in metrics), best, best_step)),
                *(job.global_step, job.seconds, job.weights_sha256 or ""),
                *(job.error or "", job.directory),
            ]
        )
        rows.writerow(cells)
    return text.getvalue()


def markdown_text(
    index: SweepIndex,
    directory: str,
    *,
    num_threads: int | None = None,
) -> str:
    """Return the table of all groups, the errors of failed jobs and a summary, in the Markdown of GitHub.

    Args:
        index: index of the sweep.
        directory: directory of the sweep, as it is printed.
        num_threads: number of threads of the jobs; None if it is unknown.
    """
    table = group_table(index)
    rows = [["", *(column.heading for column in table.columns)], ["---"] * (len(table.columns) + 1)]
    rows += [[BEST_MARK.strip() if row.is_best else "", *row.cells] for row in table.rows]
    lines = [f"| {' | '.join(map(_escaped, cells))} |" for cells in rows]
    notes = [FEW_SEEDS] if table.has_few_pairs else []
    failures = failure_lines(index)
    tie = tie_line(index)
    steps = next_steps(index, directory, num_threads=num_threads, width=0)[1:]  # without the names of the files
    parts = [
        [f"# {_escaped(directory)}"],
        [_escaped(summary_line(index)), *([] if tie is None else [_escaped(tie)])],
        lines,
        notes,
        [f"- {_escaped(line)}" for line in failures],
        [f"- {label}: {_code(command)}" for label, _, command in (step.partition(": ") for step in steps)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _printable(cells: Sequence[Any]) -> list[Any]:
    """Replace unprintable characters of texts. An index may come from an untrusted source."""
    return [printable(cell, keeps_newlines=False) if isinstance(cell, str) else cell for cell in cells]


def _cell(value: Any) -> str:
    """Return a number with all its digits; an empty string if it is not a finite number."""
    return str(value) if is_number(value) else ""


def _escaped(text: str) -> str:
    """Escape the characters of a text that have a meaning in Markdown."""
    return re.sub(r"([\\|`*<\[\]])", r"\\\1", text)


def _code(command: str) -> str:
    """Return a command as code. The fence is longer than each run of backticks in the command."""
    fence = "`" * (max(map(len, re.findall("`+", command)), default=0) + 1)
    space = " " if "`" in command else ""
    return f"{fence}{space}{command}{space}{fence}"
