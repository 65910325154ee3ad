"""The one call of Hydra's main."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra

from loopwright.errors import SaveError
from loopwright.experiment.compose.composer import CONFIG_NAME, VERSION_BASE
from loopwright.shipped import conf_dir

_FULL_ERROR = "HYDRA_FULL_ERROR"


def run_hydra(words: Sequence[str], task: Callable[[Any], float]) -> int:
    """Hand a command line to Hydra, which calls ``task`` with each job's configuration.

    Args:
        words: flags and overrides that have been checked.
        task: must raise nothing that holds a run.

    Returns:
        Hydra's exit code.

    Raises:
        SaveError: if Hydra cannot write its files.
    """
    before, full_error = sys.argv, os.environ.get(_FULL_ERROR)
    sys.argv, os.environ[_FULL_ERROR] = ["loopwright", *words], "1"  # Hydra raises what it would print in many lines
    try:
        hydra.main(config_path=str(conf_dir()), config_name=CONFIG_NAME, **VERSION_BASE)(task)()
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else 0 if exit.code is None else 1
    except OSError as error:
        where = "the run directory" if error.filename is None else error.filename
        raise SaveError(f"{where}: cannot be written: {error.strerror or error}") from error
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = full_error
    return 0


def run_nothing(words: Sequence[str]) -> int:
    """Hand a command line to Hydra that only asks for information."""
    return run_hydra(words, _refuse)


def _refuse(config: Any) -> float:
    raise AssertionError("asked for information, Hydra runs no job")
