"""Functions that read the files of a job that has not begun, and the command line that begins it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from loopwright.errors import CheckpointError
from loopwright.experiment.gate.budget import MAX_CHARACTERS
from loopwright.experiment.sweep.index import JobEntry
from loopwright.records import read_record


def check_digest(directory: Path, job: JobEntry) -> None:
    """Check that the configuration of a job is the one that the index names.

    Raises:
        CheckpointError: if ``config.yaml`` was changed or removed.
    """
    text = read_record(directory / "config.yaml", MAX_CHARACTERS)
    if text is None:
        raise CheckpointError(f"{directory}: expected a directory with the config.yaml of job {job.number}.")
    if hashlib.sha256(text).hexdigest() != job.config_sha256:
        problem = "was changed after the sweep began; restore it, or start a new sweep"
        raise CheckpointError(f"{directory / 'config.yaml'}: {problem}.")


def process_words(flags: Sequence[str], sweep_dir: Path, number: int) -> list[str]:
    """Return the words of a command line, without ``loopwright``, that carries out one job of the sweep.

    Args:
        flags: flags of the packages that the user trusts. The index is a file, so it cannot trust a package.
        sweep_dir: directory of the sweep.
        number: number of the job.
    """
    return [*flags, "sweep", "job", str(sweep_dir), str(number)]


def read_choices(directory: Path) -> Any:
    """Return the chosen option of each configuration group, from ``.hydra/hydra.yaml``."""
    data = read_record(directory / ".hydra" / "hydra.yaml", MAX_CHARACTERS)
    try:
        return yaml.safe_load(data or b"")["hydra"]["runtime"]["choices"]
    except (yaml.YAMLError, LookupError, TypeError, RecursionError):
        return {}
