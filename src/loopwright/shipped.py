"""Functions that return the directories of the shipped configuration files and downstream tasks."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """Return the directory ``conf`` of the installed package. In a checkout, return ``conf`` of the repository.

    Raises:
        FileNotFoundError: if neither directory exists, because the installation is broken.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise FileNotFoundError(
        f"{package / 'conf'}: the shipped configuration files are missing; install loopwright again."
    )


def task_dir() -> Path:
    """Return the directory of the shipped downstream tasks. This directory is not a configuration group."""
    return conf_dir() / "downstream"
