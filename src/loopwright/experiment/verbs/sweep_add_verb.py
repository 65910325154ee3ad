"""The command ``loopwright sweep add DIR``, which adds jobs with further values or seeds to a sweep."""

from __future__ import annotations

from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.recorded import read_recorded
from loopwright.experiment.sweep.add_jobs import added_index
from loopwright.experiment.sweep.carry_on import carry_on, check_runnable
from loopwright.experiment.sweep.find_sweep import read_sweep_directory
from loopwright.experiment.sweep.read_sweep import changed_settings, recorded_sweep
from loopwright.experiment.verbs.sweep_verb import read_trusted_index, split_settings
from loopwright.run_lock import hold


def add_jobs(line: CommandLine, trust: Trust) -> int:
    """Add the jobs with further values or seeds, run them, and return the exit code of the sweep.

    Raises:
        SettingError: for wrong overrides, and if the sweep has these jobs already.
        CheckpointError: if the directory contains no sweep, if its index or a configuration cannot be used, or if
            another process runs the sweep.
    """
    assert line.directory is not None
    directory = read_sweep_directory(line.directory)
    with hold(directory):
        index = read_trusted_index(directory, trust)
        settings, words = split_settings(line.overrides)
        index = changed_settings(index, settings)
        if index.jobs:
            config = read_recorded(directory / index.jobs[0].directory)
            check_runnable(recorded_sweep(index), config, index.objective.mode, trust)
        index, added = added_index(directory, index, words, trust)
        return carry_on(directory, index, recorded_sweep(index), trust, only=added)
