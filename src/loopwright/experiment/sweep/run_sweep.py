"""`run_sweep`: checks the jobs of a new sweep, writes their directories, and runs them."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loopwright.device import read_world
from loopwright.errors import CheckpointError, SettingError
from loopwright.experiment.console.command_line import CommandLine, shell_line, words_on
from loopwright.experiment.console.messages import tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import check_each
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.launch.supervised import Supervised
from loopwright.experiment.rundir.directory import allocate, check_usable, use
from loopwright.experiment.sweep.add_jobs import further_values, job_words
from loopwright.experiment.sweep.carry_on import carry_on, check_runnable
from loopwright.experiment.sweep.disk_space import warn_about_space
from loopwright.experiment.sweep.index import SweepIndex
from loopwright.experiment.sweep.index_file import INDEX_FILE, read_index
from loopwright.experiment.sweep.prepare import common_objective, make_index, typed_words, with_jobs
from loopwright.experiment.sweep.read_sweep import Sweep, recorded_sweep
from loopwright.experiment.sweep.reconcile import reconciled
from loopwright.experiment.sweep.store import opened_store

_DIRECTORY = "hydra.sweep.dir"


def run_sweep(
    line: CommandLine, sweep: Sweep, jobs: list[Job], trust: Trust, supervised: Supervised | None = None
) -> int:
    """Check all jobs, write their directories, run them, and return the exit code.

    Args:
        line: command line of the sweep.
        sweep: settings and factors of the sweep.
        jobs: composed jobs. This function empties the list to free their memory. In a search, these jobs are only
            checked, and other jobs are proposed later.
        trust: packages that the user trusts.
        supervised: connection to another process, which runs the jobs. This process then only writes the directory,
            and sends its path to the other process. None: this process also runs the jobs.

    Raises:
        SettingError: for wrong settings of any job, before the directory of the sweep is created.
        CheckpointError: for a checkpoint that does not exist, before the directory of the sweep is created.
    """
    world = read_world(os.environ)
    if world.world_size > 1:
        launcher = world.launcher if world.launcher in ("torchrun", "srun") else "WORLD_SIZE"
        remedy = f"use device.num_processes={world.world_size} in each job, without {launcher}"
        raise SettingError("-m", f": a sweep starts its own processes; {remedy}.")
    typed = jobs[0].directory
    if typed is not None:
        _refuse_sweep(Path(typed), sweep, line.permissions)
        check_usable(_DIRECTORY, Path(typed))
    checked = list(check_each(jobs, trust, builds_trusted=False))
    name, first_config = jobs[0].settings.name, checked[0][0].config
    gc.collect()  # frees objects of the checks that are in reference cycles
    objective = common_objective([job for job, _ in checked])
    if sweep.settings.launcher != "none":
        check_runnable(sweep, first_config, objective.mode, trust)
    directory = allocate(name, is_sweep=True) if typed is None else use(_DIRECTORY, typed)
    warn_about_space(checked[0][0], sweep.num_jobs, directory, trust)
    index = make_index(line, name, sweep, objective, str(Path.cwd()))
    if not sweep.settings.is_search:
        index = with_jobs(directory, index, sweep, checked, trust)
    if sweep.settings.launcher == "none":
        return _leave(directory, index, line.permissions)
    if supervised is not None:
        _write(directory, index)
        supervised.tell(directory)
        return 0
    del checked
    jobs.clear()  # the runner needs only the index
    return carry_on(directory, index, sweep, trust, first_config=first_config)


def _leave(directory: Path, index: SweepIndex, permissions: Sequence[str]) -> int:
    """Write the index of a sweep whose jobs another program starts, and print the command of a job."""
    _write(directory, index)
    words = ["loopwright", *permissions, "sweep", "job", str(directory), "0"]
    tell(f"{len(index.jobs)} jobs were written to {directory}. To run job 0: {shell_line(words)}")
    return 0


def _write(directory: Path, index: SweepIndex) -> None:
    """Write the index of a sweep that this process does not run."""
    with opened_store(directory, replace(index, state="interrupted")):
        pass


def _refuse_sweep(directory: Path, sweep: Sweep, permissions: Sequence[str]) -> None:
    """Refuse a typed directory that contains a sweep. If a command continues this sweep, the message names it."""
    if not (directory / INDEX_FILE).exists():
        return
    try:
        held = read_index(directory)
    except CheckpointError as error:
        raise SettingError(_DIRECTORY, f"={str(directory)!r}: {error}") from None
    known = {job_words(job.overrides) for job in held.jobs}
    wanted = [job_words(words) for words in sweep.jobs]
    num_known = sum(words in known for words in wanted)
    is_grid = not sweep.settings.is_search and not recorded_sweep(held).settings.is_search
    values = further_values(held, sweep) if is_grid else []
    problem, verb = "holds another sweep; name a new directory", None
    if typed_words(sweep.overrides) == held.overrides or (is_grid and num_known == len(wanted)):
        num_done = sum(job.state == "done" for job in reconciled(directory, held).jobs)
        problem, verb = f"holds this sweep, {num_done} of {len(held.jobs)} done; ", "resume"
        values = []
    elif num_known == len(known) and values:
        problem, verb = f"holds a sweep with {len(known)} of these {len(wanted)} jobs; ", "add"
    if verb is not None:
        problem += shell_line(["loopwright", "sweep", *words_on(verb, directory, permissions), *values])
    raise SettingError(_DIRECTORY, f"={str(directory)!r}: {problem}.")
