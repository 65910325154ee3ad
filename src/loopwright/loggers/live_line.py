"""`LiveLine`: one line at the bottom of a terminal that is redrawn, while all else scrolls above it."""

from __future__ import annotations

import sys
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loopwright.loggers.lines import encodable


class View(Protocol):
    """What a live line shows."""

    def live_text(self) -> str:
        """The line, what matters most first: a narrow terminal cuts its end off."""
        ...

    def done_and_total(self) -> tuple[int, int]:
        """How far it is, and how far it goes; a total of 0 has no bar."""
        ...


class LiveLine:
    """Draws a view at the bottom of the terminal, by a timer of its own, so that a step does nothing for it.

    What anybody prints meanwhile to stdout, and to stderr where that is the terminal too, appears above the line.

    Args:
        view: read by the timer's thread while training goes on.
        refresh_seconds: between two drawings.
    """

    def __init__(self, view: View, refresh_seconds: float) -> None:
        self._view = view
        self._console = Console(file=sys.stdout, force_terminal=True)
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=1 / refresh_seconds,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),  # a file that stderr was sent to keeps its warnings
        )
        self._live.start()

    def print(self, text: str) -> None:
        """Print above the line."""
        self._console.print(Text(encodable(text, self._console.encoding)), soft_wrap=True)

    def stop(self) -> None:
        """Erase the line and give the terminal back."""
        try:
            self._live.stop()
        finally:
            self._console.show_cursor()

    def _render(self) -> RenderableType:
        shown = encodable(self._view.live_text(), self._console.encoding)
        is_unicode = self._console.encoding.startswith("utf")  # else there may be no sign for what was cut off
        text = Text(shown, no_wrap=True, overflow="ellipsis" if is_unicode else "crop")
        num_done, num_total = self._view.done_and_total()
        bar_width = 20 if self._console.width >= 120 else 10
        if self._console.width < 100 or not num_total:
            return text
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_row(
            ProgressBar(num_total, num_done, width=bar_width, complete_style="cyan", finished_style="green"), text
        )
        return row
