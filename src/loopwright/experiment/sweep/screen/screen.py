"""`Screen`, which shows a sweep while it runs.

On a terminal, the running jobs are drawn below the lines of the ended jobs. In a file, each ended job has one line.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from loopwright.experiment.console.messages import complain
from loopwright.experiment.sweep.index import JobEntry, SweepIndex
from loopwright.experiment.sweep.screen.following import (
    JobFollowers,
    sweep_seconds_left,
)
from loopwright.experiment.sweep.screen.lines import (
    bottom_line,
    error_text,
    job_labels,
    job_line,
    number_width_of,
    running_lines,
)
from loopwright.terminal_text import encodable, wrapped

_STATE_STYLES = {"done": "green", "failed": "red", "pruned": "yellow", "skipped": "yellow", "interrupted": "yellow"}
_ASCII = str.maketrans({"·": "-", "…": "...", "×": "x", "━": "=", "╸": ">", "─": "-"})


def is_same_output(stdout: TextIO, stderr: TextIO) -> bool:
    """Return whether both streams write to the same file, pipe or terminal."""
    if stdout is stderr:
        return True
    try:
        return os.path.samestat(os.fstat(stdout.fileno()), os.fstat(stderr.fileno()))
    except (OSError, ValueError):  # a stream without a file, or a closed stream
        return False


class Screen:
    """Shows a sweep while it runs. Open it as a context manager.

    On a terminal, a thread draws the running jobs four times a second. The lines of ended jobs scroll above them.
    Otherwise, only the lines of ended jobs are printed. If the environment variable ``NO_COLOR`` is set, no colours are
    used.

    Args:
        get_index: function that returns the index as it is now. The thread calls it.
        directory: directory of the sweep.
        stream: output, usually standard output.
        is_live: whether the running jobs are drawn. With None, they are drawn if the output is a terminal that can
            move its cursor.
        width: columns of the output. With None, the columns of the terminal.
        get_seconds: monotonic clock.
        refresh_seconds: time between two drawings.
    """

    def __init__(
        self,
        get_index: Callable[[], SweepIndex],
        directory: Path,
        *,
        stream: TextIO,
        is_live: bool | None = None,
        width: int | None = None,
        get_seconds: Callable[[], float] = time.monotonic,
        refresh_seconds: float = 0.25,
    ) -> None:
        self._get_index = get_index
        self._stream = stream
        is_terminal = stream.isatty()
        can_draw = is_terminal and os.environ.get("TERM", "") not in ("", "dumb")
        self._is_live = can_draw if is_live is None else is_live
        self._console = Console(file=stream, width=width, force_terminal=self._is_live or None, markup=False)
        self._has_width = self._is_live or is_terminal or width is not None
        self._get_seconds = get_seconds
        self._refresh_seconds = refresh_seconds
        self._live: Live | None = None
        self._began_seconds = 0.0
        self._tick = 0
        self._followers = JobFollowers(directory)
        self._labels: dict[int, str] = {}

    def __enter__(self) -> Self:
        """Draw the screen for the first time, and start the thread."""
        self._began_seconds = self._get_seconds()
        if self._is_live:
            self._live = Live(
                console=self._console,
                get_renderable=self._draw,
                refresh_per_second=1 / self._refresh_seconds,
                transient=True,
                redirect_stdout=self._stream is sys.stdout,
                redirect_stderr=is_same_output(self._stream, sys.stderr),  # another file must receive its lines
                vertical_overflow="crop",
            )
            try:
                self._live.start(refresh=True)
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        """Erase the running jobs and restore the terminal. The lines of ended jobs remain."""
        self._close()

    def job_ended(self, entry: JobEntry) -> None:
        """Print the line of an ended job. If it failed, its error is also printed to standard error.

        The error is not printed twice if both outputs are the same terminal or file.
        """
        index, width = self._get_index(), self._console.width if self._has_width else None
        label, name = self._labels_of(index)[entry.number], index.objective.name
        self._print(job_line(entry, label, width, objective=name, number_width=number_width_of(index)), entry.state)
        if entry.state == "failed" and not is_same_output(self._stream, sys.stderr):
            complain(f"job {entry.number} failed: {error_text(entry)}")

    def say(self, text: str) -> None:
        """Print text that remains, above the running jobs."""
        self._print(wrapped(text, self._console.width) if self._has_width else text)

    def _print(self, text: str, state: str = "") -> None:
        """Print text and colour the first occurrence of ``state``. If the output was closed, nothing is printed."""
        text = self._encodable(text)
        try:
            if self._is_live:
                shown, at = Text(text), text.find(f" {state}") + 1
                shown.stylize(_STATE_STYLES.get(state, ""), at, at + len(state))
                self._console.print(shown, soft_wrap=True, highlight=False)
                if self._live is not None:
                    self._live.refresh()  # the drawing no longer contains this job
            else:
                print(text, file=self._stream, flush=True)
        except BrokenPipeError:
            # At exit, Python would write the buffered output and raise the error again. This call discards the output.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        except OSError:  # the terminal was closed; the jobs continue
            self._close()

    def _encodable(self, text: str) -> str:
        encoding = self._console.encoding
        return encodable(text if encoding.startswith("utf") else text.translate(_ASCII), encoding)

    def _close(self) -> None:
        live, self._live = self._live, None
        if live is None:
            return
        with suppress(OSError):  # the terminal may have been closed
            try:
                live.stop()
            finally:
                self._console.show_cursor(True)

    def _labels_of(self, index: SweepIndex) -> Mapping[int, str]:
        """Return the labels of all jobs, padded to equal lengths. The labels are computed again if jobs were added."""
        if len(self._labels) != len(index.jobs):
            labels = job_labels(index)
            longest = max(map(len, labels.values()), default=0)
            self._labels = {number: label.ljust(longest) for number, label in labels.items()}
        return self._labels

    def _draw(self) -> Text:
        """Return the drawing: the running jobs that fit on the terminal, and the last line."""
        index, now, width = self._get_index(), self._get_seconds(), self._console.width
        self._tick += 1
        running = self._followers.read(index, now)
        labels, number_width = self._labels_of(index), number_width_of(index)
        texts = running_lines(running, labels, width, number_width=number_width, tick=self._tick)
        height = self._console.height  # some lines of ended jobs remain visible above the drawing
        num_shown = _num_that_fit([text.count("\n") + 1 for text in texts], height - 2 - min(6, height // 4))
        more = [f"  and {len(running) - num_shown:,} more running"] if num_shown < len(running) else []
        last = bottom_line(index, now - self._began_seconds, sweep_seconds_left(index, running), width)
        lines = [*texts[:num_shown], *more, last]
        text = Text(self._encodable("\n".join(lines)), no_wrap=True, overflow="crop")
        text.highlight_regex(r"[━╸]+", "cyan")
        text.highlight_regex(r"─+", "bright_black")
        text.highlight_regex(r"\d+ failed(?=[^\n]*$)", "red")
        return text


def _num_that_fit(heights: Sequence[int], num_lines: int) -> int:
    """Return how many texts fit into ``num_lines`` lines. If not all fit, one line is kept free for a note."""
    if sum(heights) <= num_lines:
        return len(heights)
    return sum(each < num_lines for each in itertools.accumulate(heights))
