"""`default_loggers`: the loggers of a trainer for which ``loggers`` is None."""

from __future__ import annotations

import sys

from loopwright.hooks import Logger
from loopwright.loggers.progress import ProgressLogger


def default_loggers() -> list[Logger]:
    """Return a `ProgressLogger` in a terminal and in a notebook, and no logger elsewhere."""
    return [ProgressLogger()] if _is_terminal() or _is_notebook() else []


def _is_terminal() -> bool:
    return sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()  # pythonw has no stdout


def _is_notebook() -> bool:
    """Return whether IPython runs this code. If IPython is not imported yet, the answer is no."""
    module = sys.modules.get("IPython")
    return module is not None and module.get_ipython() is not None
