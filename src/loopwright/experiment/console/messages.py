"""One line for one problem: what the command says on the error stream."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from loopwright.errors import text_of
from loopwright.loggers.lines import encodable


def one_line(text: object) -> str:
    """``text`` on a single line, its control characters shown as escapes."""
    joined = " ".join(str(text).split())
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in joined)


def one_line_of(error: BaseException) -> str:
    """The error's type, message and notes on a single line, as for a failed job."""
    message = _without_traceback(text_of(error)).strip()
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    notes = getattr(error, "__notes__", [])
    return one_line(" ".join([said if not notes or said.endswith((".", "?")) else f"{said}.", *notes]))


def _without_traceback(message: str) -> str:
    """What torch says of an error in a worker, without the traceback of it that it puts into the message."""
    head, is_there, traceback = message.partition("Original Traceback (most recent call last):")
    return head + re.split(r"\n {2,}[^\n]*", traceback)[-1] if is_there else message


def joined(problems: Sequence[str]) -> str:
    """Several problems as one line, in the order in which they were found."""
    return " Also: ".join(problems)


def complain(problem: object) -> None:
    """Print ``problem`` as one line to the error stream."""
    print(one_line(problem), file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """Print ``text`` to standard output; that its reader has gone is no failure of a run."""
    try:
        print(encodable(text, sys.stdout.encoding), flush=True)
    except BrokenPipeError:
        # What is still buffered would fail once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
