"""`run_hydra`, the only function that calls ``hydra.main``, and `run_nothing`, which prints Hydra's information."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any

import hydra

from loopwright.errors import SaveError
from loopwright.experiment.compose.composer import CONFIG_NAME, VERSION_BASE
from loopwright.experiment.console.messages import tell
from loopwright.shipped import conf_dir

_FULL_ERROR = "HYDRA_FULL_ERROR"


def run_hydra(words: Sequence[str], task: Callable[[Any], float]) -> int:
    """Run a command line with Hydra. Hydra calls ``task`` with the configuration of each job.

    Args:
        words: flags and overrides that have been checked.
        task: function that runs one job. If it raises an exception, the traceback must not refer to objects of the run.
            Hydra keeps the traceback, so these objects would stay in memory.

    Returns:
        Exit code of Hydra.

    Raises:
        SaveError: if Hydra cannot write its files.
    """
    before, full_error = sys.argv, os.environ.get(_FULL_ERROR)
    sys.argv = ["loopwright", *words]
    os.environ[_FULL_ERROR] = "1"  # with this value, Hydra raises errors; otherwise, it prints many lines
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
    """Call Hydra with a command line that only prints information and runs no job.

    Hydra's output may contain control characters from an untrusted configuration file. `tell` escapes these characters.
    """
    with redirect_stdout(io.StringIO()) as printed:
        code = run_hydra(words, _refuse)
    if printed.getvalue():
        tell(printed.getvalue().removesuffix("\n"), wraps=False)
    return code


def _refuse(config: Any) -> float:
    raise AssertionError("Hydra ran a job, although only information was requested")
