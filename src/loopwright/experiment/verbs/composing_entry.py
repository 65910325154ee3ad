"""`execute_composing`: carries out the commands that only compose a configuration, without the imports of a run."""

from __future__ import annotations

from pathlib import Path

from loopwright.experiment.compose.checked_files import check_loaded_files
from loopwright.experiment.compose.composer import composing
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.gate.hydra_tree import override_key
from loopwright.experiment.gate.project_file import with_config_dir
from loopwright.experiment.gate.resolvers import lock_resolvers
from loopwright.experiment.gate.trust import read_trust


def execute_composing(line: CommandLine) -> int:
    """Carry out ``config`` or ``explain``, and return the exit code.

    Raises:
        SettingError: for a wrong setting.
        CheckpointError: if ``ckpt_path`` or ``init_from`` names no run.
    """
    lock_resolvers()
    check_loaded_files()
    trust = read_trust(line.trust, Path.cwd(), line.allow_env)
    if any(override_key(word) in ("ckpt_path", "init_from") for word in line.overrides):
        from loopwright.experiment.rundir.found_starts import with_found_starts

        line = with_found_starts(line)
    line = with_config_dir(line, Path.cwd())
    with composing(line.config_dir, trust.variables) as composer:
        if line.verb == "explain":
            from loopwright.experiment.verbs.explain_verb import explain

            return explain(line, composer)
        from loopwright.experiment.verbs.config_verb import print_config

        return print_config(line, composer, trust)
