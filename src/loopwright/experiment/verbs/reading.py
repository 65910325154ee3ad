"""`execute_reading`: carries out commands that only read what runs have left. They import neither torch nor Hydra."""

from __future__ import annotations

from importlib import import_module

from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.reading_verbs import READING_VERBS


def execute_reading(line: CommandLine) -> int:
    """Carry out a command of `READING_VERBS`, and return the exit code. Only the module of this command is imported.

    Raises:
        SettingError: for a wrong option.
        CheckpointError: for a directory or file that cannot be read.
    """
    assert line.verb is not None
    module, _, function = READING_VERBS[line.verb].function.partition(":")
    code: int = getattr(import_module(module), function)(line)
    return code
