"""`run_report`, which returns the HTML page of a run, and `write_run_report`, which writes the page.

This module imports neither torch nor Hydra, so that commands that only read can use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from loopwright.records.report.run_files import read_run_files
from loopwright.records.report.run_page import run_page
from loopwright.records.report.uplot import UPlot, read_uplot
from loopwright.regular_files import replace_file

REPORT_FILE = "report.html"


def write_run_report(directory: Path, commands: Mapping[str, str]) -> None:
    """Write ``report.html`` into a run directory.

    Args:
        directory: run directory.
        commands: commands that continue or use the run, by label.

    Raises:
        CheckpointError: if the directory contains no run.
        OSError: if the page cannot be written.
    """
    replace_file(directory / REPORT_FILE, run_report(directory, commands, read_uplot()).encode())


def run_report(directory: Path, commands: Mapping[str, str], uplot: UPlot | None) -> str:
    """Return the page of a run as HTML.

    Args:
        directory: run directory.
        commands: commands that continue or use the run, by label.
        uplot: script for interactive charts; None: the charts are SVG only.

    Raises:
        CheckpointError: if the directory contains no run.
    """
    return run_page(read_run_files(directory), list(commands.items()), now_text(), uplot)


def now_text() -> str:
    """Return the current time as it is shown in a page."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
