"""Functions that print errors and warnings as single lines to standard error, and results to standard output."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from loopwright.errors import text_of
from loopwright.terminal_text import encodable, fitted

_FILE_COLUMNS = 120
_MAX_CHARACTERS = 10_000  # maximum length of a line of `complain`; an untrusted file can cause longer messages


def one_line(text: object) -> str:
    """Return ``text`` as one line. Replace control characters by escape sequences."""
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
    """While the context is open, print each warning to standard error as a single line.

    Each record of `logging` for which no handler exists is also printed as a single line.

    Without this context, Python would print control characters in these texts unchanged. A text can contain control
    characters from the name or the content of an untrusted file.
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
    """Print a line about the progress of a slow command to standard error, if standard error is a terminal."""
    if sys.stderr.isatty() and not _is_another_rank():
        print(encodable(text, sys.stderr.encoding), file=sys.stderr, flush=True)


def output_width() -> int:
    """Return the number of columns of the terminal; 120 if standard output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _FILE_COLUMNS


def tell(text: str, *, wraps: bool = True) -> None:
    """Print ``text`` to standard output. If ``wraps`` is True, wrap the text to the width of the terminal.

    If standard output is a closed pipe, the output is discarded and the run continues. If several processes train
    together, only process 0 prints.
    """
    if _is_another_rank():
        return
    try:
        print(encodable(fitted(text) if wraps else text, sys.stdout.encoding), flush=True)
    except BrokenPipeError:
        # At exit, Python would write the buffered output and raise the error again. This call discards the output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_another_rank() -> bool:
    """Return whether this is a process other than process 0 among processes that train together."""
    environ = os.environ
    if environ.get("WORLD_SIZE", "1") != "1":
        return environ.get("RANK", "0") != "0"
    is_srun = "SLURM_STEP_ID" in environ and environ.get("SLURM_NTASKS", "1") != "1"
    return is_srun and environ.get("SLURM_PROCID", "0") != "0"
