"""`launch`: checks a job, creates its run directory, and carries out the run in this process."""

from __future__ import annotations

import os
from pathlib import Path

from loopwright.errors import refuse
from loopwright.experiment.compose.hydra_files import set_log_levels, write_hydra_files
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import complain, one_line_of
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import checked
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.launch.supervised import Supervised
from loopwright.experiment.rundir.directory import allocate, check_usable, use
from loopwright.experiment.runs.ending import RunRequest
from loopwright.experiment.runs.run import carry_out, opened


def launch(line: CommandLine, job: Job, trust: Trust, supervised: Supervised | None) -> int:
    """Check a job, then run it, and return the exit code.

    Args:
        line: command line of the run.
        job: composed job.
        trust: packages that the user trusts.
        supervised: connection to the supervisor; None if there is no supervisor. The supervisor receives the path of
            the run directory.

    Raises:
        SettingError: for a wrong setting, before the run directory is created.
        CheckpointError: for a checkpoint that does not exist, before the run directory is created.
    """
    refuse_ranks()
    if job.directory is not None:
        check_usable("hydra.run.dir", Path(job.directory))
    with checked(job, trust) as ready:
        name = job.settings.name
        directory = allocate(name, is_sweep=False) if job.directory is None else use("hydra.run.dir", job.directory)
        if supervised is not None:
            supervised.tell(directory)
        request = RunRequest(
            job=ready.job,
            directory=directory,
            words=["loopwright", *line.words],
            trust=trust,
            objects=ready.objects,
        )
        del ready  # from here, only the request refers to the objects
        try:
            if job.source is not None:
                write_hydra_files(directory, job.source)
                set_log_levels(job.source)
            with opened(directory, trust):
                return carry_out(request).exit_code
        except KeyboardInterrupt:  # a second signal arrived while the end of the run was being recorded
            code = 130
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
        except Exception as error:  # noqa: BLE001  (for example, another process has locked the run directory)
            complain(f"failed: {one_line_of(error)}")
            return 1
    complain(f"interrupted (run directory: {directory})")
    return code


def refuse_ranks() -> None:
    """Raise a `SettingError` if a launcher such as torchrun started several processes (``WORLD_SIZE`` is not 1)."""
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size != "1":
        raise refuse("WORLD_SIZE", world_size, "1", "training in several processes is not supported yet")
