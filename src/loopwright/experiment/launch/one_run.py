"""`launch`: checks a job, creates its run directory, and carries out the run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from loopwright.experiment.compose.hydra_files import set_log_levels, write_hydra_files
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import complain, one_line_of
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import checked
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.launch.rank import as_ranked, directory_of_launch, is_own_launch, joined
from loopwright.experiment.launch.run_job import run_job, starts_processes
from loopwright.experiment.launch.supervised import Supervised
from loopwright.experiment.rundir.directory import allocate, check_usable, use
from loopwright.experiment.runs.ending import RunRequest


def launch(line: CommandLine, job: Job, trust: Trust, supervised: Supervised | None) -> int:
    """Check a job, then run it, and return the exit code.

    Args:
        line: command line of the run.
        job: composed job.
        trust: packages that the user trusts.
        supervised: connection to the supervisor; None if there is no supervisor. The supervisor receives the path of
            the run directory.

    Raises:
        SettingError: for an invalid setting, before the run directory is created.
        CheckpointError: for a checkpoint that does not exist, before the run directory is created.
    """
    if job.directory is not None and not is_own_launch():
        check_usable("hydra.run.dir", Path(job.directory))
    with joined(job.config["device"], trust) as ranks, checked(as_ranked(job, ranks), trust) as ready:
        directory = directory_of_launch(ranks, partial(_make_directory, job))
        if supervised is not None:
            supervised.tell(directory)
        request = RunRequest(
            job=ready.job,
            directory=directory,
            words=["loopwright", *line.words],
            trust=trust,
            objects=ready.objects,
        )
        del ready  # after this line, only the request refers to the objects
        try:
            if job.source is not None:
                if not ranks.rank:
                    write_hydra_files(directory, job.source)
                set_log_levels(job.source)
            if starts_processes(request.job, ranks):
                request = replace(request, objects=None)
            return run_job(request, ranks)
        except KeyboardInterrupt:  # a second signal arrived while the end of the run was being recorded
            code = 130
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
        except Exception as error:  # noqa: BLE001  (for example, another process has locked the run directory)
            complain(f"failed: {one_line_of(error)}")
            return 1
    complain(f"interrupted (run directory: {directory})")
    return code


def _make_directory(job: Job) -> Path:
    if job.directory is None:
        return allocate(job.settings.name, is_sweep=False)
    return use("hydra.run.dir", job.directory)
