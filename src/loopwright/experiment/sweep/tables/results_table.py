"""`results_text`, which returns the results of a sweep as text for a terminal or a file."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

from rich.cells import cell_len

from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.tables.closing_lines import failure_lines, next_steps, summary_line, tie_line
from loopwright.experiment.sweep.tables.comparison import MIN_TEST_PAIRS
from loopwright.experiment.sweep.tables.group_table import Column, GroupTable, Row, group_table

MAX_ROWS = 20
BEST_MARK = "▸ "
FEW_SEEDS = f"Comparison: too few seeds for a test (at least {MIN_TEST_PAIRS})."
_NO_MARK = "  "
_GAP = "   "


def results_text(
    index: SweepIndex,
    directory: str,
    *,
    width: int,
    sort: str | None = None,
    jobs: Collection[int] | None = None,
    with_failures: bool = True,
    num_threads: int | None = None,
) -> str:
    """Return the table of the groups, the errors of failed jobs, a summary, and commands for the next steps.

    Args:
        index: index of the sweep.
        directory: directory of the sweep, as it is printed.
        width: width of the terminal in characters. Only the table is fitted to it.
        sort: key of a factor, last part of such a key, or name of a metric, by which the groups are sorted. None: from
            the best to the worst mean.
        jobs: numbers of jobs. Only their groups and their errors are shown. None: all jobs.
        with_failures: whether the errors of failed jobs are listed.
        num_threads: number of threads of the jobs, for the command that runs the best group; None if it is unknown.

    Raises:
        SettingError: if ``sort`` is neither a factor nor a metric of the sweep.
    """
    table = group_table(index, sort=sort, jobs=jobs)
    rows = _shown_rows(table)
    lines = table_lines(table, width)
    if with_failures:
        lines += failure_lines(index, jobs=jobs, shown={row.group for row in rows})
    tie = tie_line(index)
    lines += [summary_line(index), *([] if tie is None else [tie])]
    return "\n".join([*lines, *next_steps(index, directory, num_threads=num_threads, width=width)])


def table_lines(table: GroupTable, width: int) -> list[str]:
    """Return the lines of the table, with at most 20 rows and the row of the best group.

    If the table is too wide, columns of further metrics are left out, beginning with the last one, then the comparison
    with the baseline. If it is still too wide, each group becomes a block of lines with all columns. Values of factors
    are never broken, so a line with a long value can be wider than ``width``.
    """
    rows = _shown_rows(table)
    shown = _fitting_columns(table, rows, width)
    if shown is None:
        lines = [line for row in rows for line in [*_block(table.columns, row, width), ""]]
    else:
        lines = _grid(table.columns, rows, shown)
    num_more = len(table.rows) - len(rows)
    if num_more:
        groups = "group" if num_more == 1 else "groups"
        lines += _filled(
            f"{_NO_MARK}and {num_more} more {groups}; sort=KEY changes the order, sweep.md lists all", width
        )
    is_compared = shown is None or any(table.columns[place].kind == "comparison" for place in shown)
    return [*lines, *_filled(FEW_SEEDS, width)] if table.has_few_pairs and is_compared else lines


def _shown_rows(table: GroupTable) -> list[Row]:
    return [row for place, row in enumerate(table.rows) if place < MAX_ROWS or row.is_best]


def _fitting_columns(table: GroupTable, rows: Sequence[Row], width: int) -> list[int] | None:
    """Return the places of the columns that fit into ``width``; None if the necessary columns do not fit."""
    widths = _widths(table.columns, rows)
    shown = list(range(len(table.columns)))
    dispensable = [place for kind in ("comparison", "metric") for place in shown if table.columns[place].kind == kind]
    while len(_NO_MARK) + sum(widths[place] for place in shown) + len(_GAP) * (len(shown) - 1) > width:
        if not dispensable:
            return None
        shown.remove(dispensable.pop())
    return shown


def _widths(columns: Sequence[Column], rows: Sequence[Row]) -> list[int]:
    return [
        max(cell_len(text) for text in (column.heading, *(row.cells[place] for row in rows)))
        for place, column in enumerate(columns)
    ]


def _grid(columns: Sequence[Column], rows: Sequence[Row], shown: Sequence[int]) -> list[str]:
    widths = _widths(columns, rows)

    def line(mark: str, cells: Sequence[str]) -> str:
        padded = (cells[place] + " " * (widths[place] - cell_len(cells[place])) for place in shown)
        return f"{mark}{_GAP.join(padded)}".rstrip()

    heading = line(_NO_MARK, [column.heading for column in columns])
    return [heading, *(line(BEST_MARK if row.is_best else _NO_MARK, row.cells) for row in rows)]


def _block(columns: Sequence[Column], row: Row, width: int) -> list[str]:
    """Return the cells of a group as lines ``heading: cell``. Empty cells are left out."""
    lines: list[str] = []
    for column, cell in zip(columns, row.cells, strict=True):
        if not cell:
            continue
        mark = BEST_MARK if row.is_best and not lines else _NO_MARK
        if cell_len(f"{mark}{column.heading}: {cell}") <= width:
            lines.append(f"{mark}{column.heading}: {cell}")
            continue
        lines += _filled(f"{mark}{column.heading}:", width)
        indent = " " * max(0, min(4, width - cell_len(cell)))
        lines += [f"{indent}{cell}"] if column.kind == "factor" else _filled(f"    {cell}", width)
    return lines


def _filled(text: str, width: int) -> list[str]:
    """Break a line between words. Continuation lines have the indentation of the first line."""
    if cell_len(text) <= width:
        return [text]
    indent = " " * min(len(text) - len(text.lstrip()), max(0, width - 1))
    return textwrap.wrap(
        text.lstrip(),
        max(1, width),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
