"""What a command line asks for, carried out: composed and checked before anything is run.

Importing this imports Hydra; torch is imported later still, when every job has been composed.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import yaml  # comes with omegaconf

from loopwright.errors import refuse
from loopwright.experiment.compose.composer import composing
from loopwright.experiment.compose.hydra_main import run_nothing
from loopwright.experiment.compose.overrides import split_jobs
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.gate.resolvers import lock_resolvers
from loopwright.experiment.gate.trust import read_trust
from loopwright.experiment.jobs.job import compose_jobs
from loopwright.experiment.jobs.recorded import recorded_max_restarts
from loopwright.experiment.launch.supervised import join_supervisor
from loopwright.experiment.launch.supervisor import supervise


def execute(line: CommandLine) -> int:
    """Do what a command line asks for and return the exit code.

    Raises:
        SettingError: for a wrong setting, before anything is run.
        CheckpointError: for a checkpoint that cannot be used, likewise.
    """
    lock_resolvers()
    supervised = join_supervisor()
    if line.action in ("completion", "hydra_help"):
        return run_nothing([*line.hydra_flags, *(line.overrides if line.action == "completion" else ())])
    trust = read_trust(line.trust, Path.cwd())
    if line.directory is not None and line.verb is not None:
        if line.verb == "resume" and supervised is None:
            max_restarts = recorded_max_restarts(Path(line.directory), line.overrides)
            if max_restarts:
                return supervise(line, max_restarts, may_begin_again=False)
        verb = line.verb.replace("-", "_")
        return _after_torch(f"loopwright.experiment.verbs.{verb}_verb", verb, line, (), trust)
    with composing(line.config_dir) as composer:
        overrides = split_jobs(line.overrides, composer.loader) if line.multirun else [list(line.overrides)]
        jobs = compose_jobs(composer, overrides, trust)
    if line.action in ("cfg", "info"):
        return run_nothing([*line.hydra_flags, *line.config_dir_flag, *line.overrides])
    if line.verb == "config":
        tell(yaml.safe_dump(jobs[0].config, sort_keys=False, allow_unicode=True, width=120).rstrip("\n"))
        return 0
    if line.verb == "plan":
        return _after_torch("loopwright.experiment.verbs.plan_verb", "print_plans", line, jobs, trust)
    if line.verb == "verify":
        return _after_torch("loopwright.experiment.verbs.verify_verb", "verify", line, jobs, trust)
    max_restarts = max(job.settings.max_restarts for job in jobs)
    if max_restarts and line.multirun:
        raise refuse("max_restarts", max_restarts, "0 with -m", "the runs of a sweep are not resumed on their own")
    if max_restarts and supervised is None:
        return supervise(line, max_restarts, may_begin_again=jobs[0].directory is None)
    return _after_torch("loopwright.experiment.launch.one_run", "launch", line, jobs, trust, supervised)


def _after_torch(module: str, function: str, *args: Any) -> int:
    """Call a function whose module imports torch, which takes seconds: a wrong override should be said before."""
    return int(getattr(import_module(module), function)(*args))
