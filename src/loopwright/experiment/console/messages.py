"""Functions that print each problem as one line to standard error, and other text to standard output."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from loopwright.errors import text_of
from loopwright.loggers.lines import encodable, fitted

_MAX_CHARACTERS = 10_000  # of a problem; a longer line quotes a file of unknown origin


def one_line(text: object) -> str:
    """Return ``text`` as one line, in which control characters are replaced by escape sequences."""
    joined = " ".join(str(text).split())
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in joined)


def one_line_of(error: BaseException) -> str:
    """Return the type, message and notes of an error on one line."""
    message = _without_traceback(text_of(error)).strip()
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    notes = getattr(error, "__notes__", [])
    return one_line(" ".join([said if not notes or said.endswith((".", "?")) else f"{said}.", *notes]))


def _without_traceback(message: str) -> str:
    """Remove the traceback that torch inserts into the message of an error from a dataloader worker process."""
    head, is_there, traceback = message.partition("Original Traceback (most recent call last):")
    return head + re.split(r"\n {2,}[^\n]*", traceback)[-1] if is_there else message


def joined(problems: Sequence[str]) -> str:
    """Join several problems into one message."""
    return " Also: ".join(problems)


def complain(problem: object) -> None:
    """Print ``problem`` as one line to standard error."""
    line = one_line(problem)
    print(line if len(line) <= _MAX_CHARACTERS else f"{line[: _MAX_CHARACTERS - 1]}…", file=sys.stderr, flush=True)


@contextmanager
def warnings_on_one_line() -> Iterator[None]:
    """While the context is open, print warnings that no log handles as one line to standard error.

    Without it, Python prints a warning or a log message as it stands. It may contain control characters from the name
    or content of a file of unknown origin.
    """
    shown_before, handler_before = warnings.showwarning, logging.lastResort
    warnings.showwarning = lambda message, category, *_: complain(f"{category.__name__}: {message}")
    logging.lastResort = _ToStderr(logging.WARNING)
    try:
        yield
    finally:
        warnings.showwarning, logging.lastResort = shown_before, handler_before


class _ToStderr(logging.Handler):
    """Prints each record as one line to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())


def show_progress(text: str) -> None:
    """Print a line to standard error if it is a terminal, so that a user sees that a slow command has begun."""
    if sys.stderr.isatty() and not _is_another_rank():
        print(encodable(text, sys.stderr.encoding), file=sys.stderr, flush=True)


def tell(text: str, *, wraps: bool = True) -> None:
    """Print ``text`` to standard output, by default wrapped to the width of a terminal.

    If the pipe is closed, discard the output, so that the run does not fail. If several processes train together, only
    process 0 prints.
    """
    if _is_another_rank():
        return
    try:
        print(encodable(fitted(text) if wraps else text, sys.stdout.encoding), flush=True)
    except BrokenPipeError:
        # Buffered output would raise the error again when Python exits. It is written to the null device instead.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_another_rank() -> bool:
    """Return whether this is a process other than process 0 among processes that train together."""
    environ = os.environ
    if environ.get("WORLD_SIZE", "1") != "1":
        return environ.get("RANK", "0") != "0"
    is_srun = "SLURM_STEP_ID" in environ and environ.get("SLURM_NTASKS", "1") != "1"
    return is_srun and environ.get("SLURM_PROCID", "0") != "0"
