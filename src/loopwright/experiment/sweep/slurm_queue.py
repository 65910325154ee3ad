"""Functions that ask Slurm about the jobs of a sweep, cancel them, and read their files. They import no submitit.

The folder ``slurm`` in the directory of a sweep contains the files of submitit, and for job 3 ``exit_3.json``. The
files of submitit are never read here, because some are pickles.
"""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Sequence
from pathlib import Path

from loopwright.errors import SettingError
from loopwright.experiment.console.messages import one_line_of
from loopwright.experiment.launch.submitted_job import ExitRecord, read_exit_record
from loopwright.experiment.sweep.index import JobEntry, SweepIndex

FOLDER = "slurm"
LAUNCHER = "sweep.launcher"
_PREFIX = "slurm "
_TIMEOUT_SECONDS = 120


def exit_file(directory: Path, number: int) -> Path:
    """Return the path of the file with the exit code of a submitted job."""
    return directory / FOLDER / f"exit_{number}.json"


def request_file(directory: Path, number: int) -> Path:
    """Return the path of the file that asks a job of the local executor to end."""
    return directory / FOLDER / f"request_{number}"


def place_of(slurm_id: str) -> str:
    """Return the text for the field ``where`` of an attempt."""
    return f"{_PREFIX}{slurm_id}"


def open_slurm_id(job: JobEntry) -> str | None:
    """Return the ID of the job of Slurm whose end is not recorded in the index; None if there is none."""
    if job.state != "running" or not job.attempts or job.attempts[-1].ended is not None:
        return None
    where = job.attempts[-1].where
    return where.removeprefix(_PREFIX) if where.startswith(_PREFIX) else None


def open_slurm_ids(index: SweepIndex) -> dict[int, str]:
    """Return the IDs of the jobs of Slurm whose end is not recorded, by the number of the job."""
    found = {job.number: open_slurm_id(job) for job in index.jobs}
    return {number: slurm_id for number, slurm_id in found.items() if slurm_id is not None}


def exit_record_of(directory: Path, number: int, slurm_id: str) -> ExitRecord | None:
    """Return how a submitted job ended; None if it left no record, or if its record belongs to another attempt."""
    record = read_exit_record(exit_file(directory, number))
    return record if record is not None and record.job_id == slurm_id else None


def queued_ids() -> set[str]:
    """Return the IDs of the user's jobs that wait or run in Slurm. Each job of an array has its own ID.

    Raises:
        SettingError: if Slurm does not answer.
    """
    words = ["squeue", f"--user={getpass.getuser()}", "--array", "--noheader", "--format=%i"]
    return set(_run(words).split())


def stop_in_slurm(slurm_ids: Sequence[str]) -> None:
    """Let running jobs save and end, and remove waiting jobs from the queue.

    A waiting job does not react to a signal. The waiting jobs are removed first, so that none of them starts when a
    running job ends.

    Raises:
        SettingError: if ``scancel`` cannot be executed.
    """
    _run(["scancel", "--state=PENDING", *slurm_ids], is_checked=False)
    _run(["scancel", "--signal=TERM", *slurm_ids], is_checked=False)


def kill_in_slurm(slurm_ids: Sequence[str]) -> None:
    """End jobs: Slurm sends SIGTERM, and SIGKILL after its waiting time.

    Raises:
        SettingError: if ``scancel`` cannot be executed.
    """
    _run(["scancel", *slurm_ids], is_checked=False)


def _run(words: Sequence[str], *, is_checked: bool = True) -> str:
    """Run a command of Slurm, and return its output.

    Args:
        words: name of the command and its arguments.
        is_checked: whether an exit code other than 0 is an error. ``scancel`` exits with 1 if a job has ended already.
    """
    try:
        done = subprocess.run(words, check=is_checked, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        problem = f"=slurm: {words[0]} failed ({one_line_of(error)}); run this command where Slurm is installed."
        raise SettingError(LAUNCHER, problem) from None
    return done.stdout
