"""`logged_sweep`, which calls the loggers that record a sweep before its first job and after its last job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopwright.experiment.console.messages import one_line_of
from loopwright.experiment.gate.instantiate import instantiate
from loopwright.experiment.gate.tree import TARGET
from loopwright.experiment.gate.trust import Trust
from loopwright.hooks import RecordsSweeps

_OURS = "loopwright."  # the runner of a sweep builds no other objects
_log = logging.getLogger("loopwright")


@contextmanager
def logged_sweep(directory: Path, config: Mapping[str, Any], trust: Trust, state: Callable[[], str]) -> Iterator[None]:
    """Record a sweep with the loggers of its jobs while the context is open.

    An error of a logger is logged as a warning. It ends neither the sweep nor its jobs.

    Args:
        directory: directory of the sweep, which contains the index.
        config: configuration of a job.
        trust: packages that the user trusts.
        state: function that returns the state of the sweep.
    """
    entries = config.get("loggers")
    loggers: list[tuple[str, RecordsSweeps]] = []
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        if isinstance(entry, Mapping) and str(entry.get(TARGET)).startswith(_OURS):
            logger = instantiate(dict(entry), trust, f"loggers.{name}")
            if isinstance(logger, RecordsSweeps):
                loggers.append((name, logger))
    for name, logger in loggers:
        _try(name, logger.begin_sweep, directory)
    try:
        yield
    finally:
        for name, logger in loggers:
            _try(name, logger.end_sweep, directory, state())


def _try(name: str, method: Callable[..., None], *arguments: object) -> None:
    try:
        method(*arguments)
    except Exception as error:  # noqa: BLE001  (an error of a network or a database)
        _log.warning("loggers.%s: the sweep cannot be recorded: %s", name, one_line_of(error))
