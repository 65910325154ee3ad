"""The command ``loopwright show``, which shows one run."""

from __future__ import annotations

from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell


def show(line: CommandLine) -> int:
    """Print the run."""
    tell(f"{line.directories} {line.overrides}")
    return 0
