"""The command ``loopwright runs``, which lists the runs below a directory."""

from __future__ import annotations

from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell


def list_runs(line: CommandLine) -> int:
    """Print the runs."""
    tell(f"{line.directories} {line.overrides}")
    return 0
