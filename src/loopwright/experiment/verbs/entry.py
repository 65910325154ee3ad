"""`execute`: carries out a command line of ``loopwright``.

Importing this module imports Hydra but not torch. Importing torch takes seconds, so the modules that need torch are
imported after all jobs have been composed. An error in an override is reported before this delay.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loopwright.errors import SettingError, refuse
from loopwright.experiment.compose.checked_files import check_loaded_files
from loopwright.experiment.compose.composer import composing
from loopwright.experiment.compose.hydra_main import run_nothing
from loopwright.experiment.console.command_line import WITH_PATH, CommandLine
from loopwright.experiment.console.completion import completions
from loopwright.experiment.console.messages import show_progress, tell
from loopwright.experiment.explain.error_origin import with_origin
from loopwright.experiment.gate.project_file import with_config_dir
from loopwright.experiment.gate.resolvers import keeping_references, lock_resolvers
from loopwright.experiment.gate.trust import Trust, read_trust
from loopwright.experiment.jobs.job import Job, compose_jobs
from loopwright.experiment.jobs.recorded import recorded_max_restarts
from loopwright.experiment.launch.job_process import start_server
from loopwright.experiment.launch.supervised import Supervised, join_supervisor
from loopwright.experiment.launch.supervisor import supervise
from loopwright.experiment.rundir.find_run import find_run
from loopwright.experiment.rundir.found_starts import with_found_starts
from loopwright.experiment.sweep.find_sweep import find_sweep, refuse_sweep
from loopwright.experiment.sweep.read_sweep import Sweep, read_settings, read_sweep
from loopwright.run_lock import hold


def execute(line: CommandLine) -> int:
    """Carry out a command line, and return the exit code.

    Raises:
        SettingError: for a wrong setting, before a run starts.
        CheckpointError: for a checkpoint that cannot be used, before a run starts.
    """
    lock_resolvers()
    check_loaded_files()
    supervised = join_supervisor()
    if line.action == "completion":
        return _complete(line)
    if line.action == "hydra_help":
        return run_nothing(line.hydra_flags)
    if line.action == "run" and supervised is None:
        show_progress("loopwright: reading the configuration and importing torch …")
    is_quiet = supervised is not None  # the process that started this process has printed these lines
    trust = read_trust(line.trust, Path.cwd(), line.allow_env, is_quiet=is_quiet)
    if line.directory is not None:
        return _execute_on_path(_with_found_run(line), trust, supervised)
    line = with_config_dir(with_found_starts(line), Path.cwd(), is_quiet=is_quiet)
    try:
        return _execute_composed(line, trust, supervised)
    except SettingError as error:
        if line.multirun or line.config_dir is None:
            raise
        with composing(line.config_dir, trust.variables) as composer:
            raise with_origin(error, composer, line.overrides) from error.__cause__


def _execute_composed(line: CommandLine, trust: Trust, supervised: Supervised | None) -> int:
    """Compose the configurations of the jobs, and carry out a command on them."""
    with composing(line.config_dir, trust.variables) as composer:
        settings = read_settings(composer, line.overrides) if line.multirun else None
        is_apart = settings is not None and settings.are_jobs_apart and line.verb is None and supervised is None
        if not is_apart:
            sweep = None if settings is None else read_sweep(composer, line.overrides, settings)
            jobs = compose_jobs(composer, [list(line.overrides)] if sweep is None else sweep.jobs, trust)
    if is_apart:  # a child process composes the jobs
        from loopwright.experiment.sweep.run_apart import run_apart

        return run_apart(line, trust)
    if line.action in ("cfg", "info"):
        with keeping_references(trust.variables):
            return run_nothing([*line.hydra_flags, *line.config_dir_flag, *line.overrides])
    if line.verb is not None:
        return _execute_on_jobs(line, sweep, jobs, trust)
    max_restarts = max(job.settings.max_restarts for job in jobs)
    if sweep is not None:
        if max_restarts:
            raise refuse("max_restarts", max_restarts, "0 with -m", "the runs of a sweep are not restarted")
        if sweep.settings.uses_processes and supervised is None:
            start_server()  # imports torch in another process while this process imports it
        from loopwright.experiment.sweep.run_sweep import run_sweep

        return run_sweep(line, sweep, jobs, trust, supervised)
    if max_restarts and supervised is None:
        return supervise(line, max_restarts, may_begin_again=jobs[0].directory is None)
    from loopwright.experiment.launch.one_run import launch

    return launch(line, jobs[0], trust, supervised)


def _complete(line: CommandLine) -> int:
    """Print the completions of the command line in ``COMP_LINE``, or print a script that installs completion."""
    if any(word.startswith("query=") for word in line.overrides):
        own, for_hydra = completions(os.environ.get("COMP_LINE", ""))
        if own:
            tell("\n".join(own))
        if for_hydra is None:
            return 0
        os.environ["COMP_LINE"] = for_hydra
    return run_nothing([*line.hydra_flags, *line.overrides])


def _with_found_run(line: CommandLine) -> CommandLine:
    """Return the command line with the path of the run directory instead of ``last`` or six digits.

    The path also replaces the typed word in ``line.words``, because the run records these words and the supervisor
    repeats these words after a restart. For ``validate`` and ``predict``, ``RUN/best`` and ``RUN/last`` are replaced by
    the directory ``RUN`` and an override of ``ckpt_path``.
    """
    given, verb = line.directory, line.verb
    assert given is not None and verb is not None
    find = find_sweep if verb == "sweep" else find_run if WITH_PATH[verb] == "DIR" else str
    path = find(given)
    index = line.words.index(given, line.words.index(verb) + 1)
    line = replace(line, directory=path, words=(*line.words[:index], path, *line.words[index + 1 :]))
    head, _, checkpoint = path.rpartition("/")
    is_run = not os.path.islink(path) and os.path.lexists(os.path.join(path, "config.yaml"))
    if verb in ("validate", "predict") and head and checkpoint in ("best", "last") and not is_run:
        return replace(line, directory=head, overrides=(*line.overrides, f"ckpt_path={checkpoint}"))
    return line


def _execute_on_path(line: CommandLine, trust: Trust, supervised: Supervised | None) -> int:
    """Carry out a command that takes a run directory or a file, such as ``resume``. No configuration is composed."""
    assert line.directory is not None
    if line.verb == "sweep":
        return _execute_on_sweep(line, trust)
    if WITH_PATH[str(line.verb)] == "DIR":
        refuse_sweep(str(line.verb), line.directory, line.permissions)
    if line.verb == "resume":
        if supervised is None and (max_restarts := recorded_max_restarts(Path(line.directory), line.overrides)):
            return supervise(line, max_restarts, may_begin_again=False)
        from loopwright.experiment.verbs.resume_verb import resume

        return resume(line, trust)
    if line.verb == "validate":
        from loopwright.experiment.verbs.validate_verb import validate

        return validate(line, trust)
    if line.verb == "predict":
        from loopwright.experiment.verbs.predict_verb import predict

        return predict(line, trust)
    if line.verb == "reproduce":
        from loopwright.experiment.verbs.reproduce_verb import reproduce

        return reproduce(line, trust)
    if line.verb == "export":
        from loopwright.experiment.verbs.export_verb import export

        return export(line)
    from loopwright.experiment.verbs.import_weights_verb import import_weights

    return import_weights(line)


def _execute_on_sweep(line: CommandLine, trust: Trust) -> int:
    """Carry out a command on the directory of a sweep."""
    if line.what == "show":
        from loopwright.experiment.verbs.sweep_show_verb import show_sweep

        return show_sweep(line)
    if line.what == "job":
        from loopwright.experiment.verbs.sweep_job_verb import run_job

        return run_job(line, trust)
    if line.what == "add":
        if os.path.isdir(str(line.directory)):
            with hold(Path(str(line.directory))):
                pass  # if another process runs the sweep, its error does not wait for the import of torch
        from loopwright.experiment.verbs.sweep_add_verb import add_jobs

        return add_jobs(line, trust)
    from loopwright.experiment.verbs.sweep_verb import sweep

    return sweep(line, trust)


def _execute_on_jobs(line: CommandLine, sweep: Sweep | None, jobs: Sequence[Job], trust: Trust) -> int:
    """Carry out the command ``plan`` or ``verify`` for composed jobs."""
    if line.verb == "plan":
        from loopwright.experiment.verbs.plan_verb import print_plans

        return print_plans(sweep, jobs, trust)
    from loopwright.experiment.verbs.verify_verb import verify

    return verify(line, jobs[0], trust)
