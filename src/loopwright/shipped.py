"""Where the files are that are shipped beside the code."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """The directory ``conf``: the installed package's own, else the one at the top of the checkout.

    Raises:
        FileNotFoundError: if neither exists; the installation is broken.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"{package / 'conf'}: the shipped configuration files are missing; install again.")


def task_dir() -> Path:
    """The directory of the shipped downstream tasks, which is no configuration group."""
    return conf_dir() / "downstream"
