"""The command ``loopwright sweep job DIR N``, which carries out one job of a sweep in this process."""

from __future__ import annotations

import os

from loopwright.errors import SettingError
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import complain
from loopwright.experiment.console.options import read_options
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.launch.agent import QUIET
from loopwright.experiment.sweep.find_sweep import read_sweep_directory
from loopwright.experiment.sweep.one_job import run_sweep_job


def run_job(line: CommandLine, trust: Trust) -> int:
    """Carry out one job of a sweep, and return its exit code.

    Raises:
        SettingError: if the command line contains no number of a job.
        CheckpointError: if the directory contains no sweep.
    """
    assert line.directory is not None
    directory = read_sweep_directory(line.directory)
    number = read_options(line.overrides, {"number": None})["number"]
    if number is None or not number.isdigit():
        raise SettingError("sweep job", ": expected the number of a job, such as loopwright sweep job DIR 3.")
    outcome = run_sweep_job(directory, int(number), trust, is_quiet=os.environ.get(QUIET) == "1")
    if outcome.error is not None:
        complain(outcome.error)
    return outcome.exit_code
