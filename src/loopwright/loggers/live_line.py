"""`LiveLine`: a status line at the bottom of a terminal. Other output scrolls above the status line."""

from __future__ import annotations

import sys
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loopwright.terminal_text import encodable


class View(Protocol):
    """An object whose progress a live line shows."""

    def live_text(self, width: int) -> str:
        """Return the text of the live line. Important items come first, because the terminal truncates the end.

        Args:
            width: columns of the terminal.
        """
        ...

    def done_and_total(self) -> tuple[int, int]:
        """Return (units done, units in total) for the progress bar. If the total is 0, no bar is drawn."""
        ...


class LiveLine:
    """Shows the progress of a view in the last line of the terminal. A timer thread redraws this line.

    Text on stdout appears above the line. If stderr is a terminal, text on stderr also appears above the line.

    Args:
        view: object whose progress is shown. The timer thread reads the view while training continues.
        refresh_seconds: time between two redraws in seconds.
    """

    def __init__(self, view: View, refresh_seconds: float) -> None:
        self._view = view
        self._console = Console(file=sys.stdout, force_terminal=True)
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=1 / refresh_seconds,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),  # False for a file, because warnings must reach the file
        )
        self._live.start()

    def print(self, text: str) -> None:
        """Print ``text`` above the live line."""
        self._console.print(Text(encodable(text, self._console.encoding)), soft_wrap=True)

    def stop(self) -> None:
        """Erase the live line and restore the terminal."""
        try:
            self._live.stop()
        finally:
            self._console.show_cursor()

    def _render(self) -> RenderableType:
        shown = encodable(self._view.live_text(self._console.width), self._console.encoding)
        is_unicode = self._console.encoding.startswith("utf")  # other encodings may have no ellipsis character
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
