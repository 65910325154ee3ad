"""The commands ``loopwright sweep resume|retry|stop DIR``, which continue or end a sweep. They import no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loopwright.errors import SettingError, refuse
from loopwright.experiment.console.command_line import CommandLine, shell_line, words_on
from loopwright.experiment.console.messages import output_width, tell
from loopwright.experiment.console.options import read_options, split_options
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.recorded import read_recorded
from loopwright.experiment.rundir.source_digests import source_digests
from loopwright.experiment.rundir.stop_file import INTERRUPT, write_stop_file
from loopwright.experiment.sweep.attempts import has_begun, set_aside
from loopwright.experiment.sweep.carry_on import carry_on, check_runnable
from loopwright.experiment.sweep.find_sweep import read_jobs, read_sweep_directory
from loopwright.experiment.sweep.index import LEFT, JobEntry, SweepIndex, state_of
from loopwright.experiment.sweep.index_file import read_index
from loopwright.experiment.sweep.job_files import check_digest
from loopwright.experiment.sweep.read_sweep import changed_settings, recorded_sweep
from loopwright.experiment.sweep.reconcile import has_checkpoint, reconciled
from loopwright.experiment.sweep.requests import StopRequest, write_request
from loopwright.experiment.sweep.result_writer import ResultWriter
from loopwright.experiment.sweep.slurm import settled
from loopwright.experiment.sweep.slurm_queue import open_slurm_id, open_slurm_ids, stop_in_slurm
from loopwright.experiment.sweep.store import opened_store
from loopwright.experiment.sweep.tables.results_table import results_text
from loopwright.records.environments import read_environment, section
from loopwright.run_lock import hold, is_locked

_RAISED = "raised"


def sweep(line: CommandLine, trust: Trust) -> int:
    """Continue or end a sweep, and return the exit code of the sweep.

    Raises:
        SettingError: for a wrong option, or if a flag with which the sweep was started is missing.
        CheckpointError: if the directory contains no sweep, if its index or a configuration cannot be used, or if
            another process runs the sweep.
    """
    assert line.directory is not None
    directory = read_sweep_directory(line.directory)
    if line.what == "stop":
        return _stop(directory, line.overrides)
    with hold(directory):
        index = read_trusted_index(directory, trust)
        if line.what == "resume":
            return _resume(directory, index, line.overrides, trust)
        return _retry(directory, index, line.overrides, trust)


def read_trusted_index(directory: Path, trust: Trust) -> SweepIndex:
    """Return the index of a sweep, with the states that the run directories and Slurm show.

    Raises:
        SettingError: if a flag with which the sweep was started is missing.
        CheckpointError: if the index cannot be used.
    """
    _check_trust(read_index(directory), trust)
    return settled(directory, reconciled(directory, read_index(directory)))


def _check_trust(index: SweepIndex, trust: Trust) -> None:
    """Refuse to start jobs without the flags with which the sweep was started.

    Raises:
        SettingError: if a flag is missing. The flags in the index do not count, as any program can change this file.
    """
    missing = [flag for flag in index.trust if flag not in trust.flags]
    if missing:
        flag = missing[0].partition("=")[0]
        remedy = f"add {' '.join(missing)} only if you trust its code" if flag == "--trust" else f"add {missing[0]}"
        raise SettingError(flag, f": the sweep was started with {missing[0]}; {remedy}.")


def split_settings(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides that are settings of the sweep, and the other overrides."""
    settings = [word for word in overrides if word.startswith("sweep.")]
    return settings, [word for word in overrides if word not in settings]


def _resume(directory: Path, index: SweepIndex, overrides: Sequence[str], trust: Trust) -> int:
    """Run the jobs that are pending, interrupted or skipped."""
    settings, others = split_settings(overrides)
    if others:
        problem = ": sweep resume cannot change the settings of a job; it accepts only settings of the sweep, such as"
        raise SettingError(others[0], f"{problem} sweep.num_parallel=2. For further values, use sweep add.")
    index = changed_settings(index, settings)
    jobs = [replace(job, state="pending") if job.state == "skipped" else job for job in index.jobs]
    left = [job for job in jobs if job.state in LEFT]
    sweep = recorded_sweep(index)
    limit = sweep.settings.num_proposals or 0
    if not left and not open_slurm_ids(index) and (not sweep.settings.is_search or len(index.groups) >= limit):
        with opened_store(directory, replace(index, state=state_of(jobs))) as store:
            ResultWriter(store, None).finish()  # another program may have run the jobs
        tell(results_text(store.index, str(directory), width=output_width()), wraps=False)
        tell("Nothing is left to do.")
        return 1 if any(job.state == "failed" for job in jobs) else 0
    for job in left:
        check_digest(directory / job.directory, job)
    return carry_on(directory, replace(index, jobs=tuple(jobs)), sweep, trust)


def _retry(directory: Path, index: SweepIndex, overrides: Sequence[str], trust: Trust) -> int:
    """Run failed jobs again."""
    settings, others = split_settings(overrides)
    options = read_options(others, {"jobs": None, "from": None})
    if options["from"] not in (None, "start", "checkpoint"):
        raise refuse("from", options["from"], "start or checkpoint")
    index = changed_settings(index, settings)
    failed = [job for job in index.jobs if job.state == "failed"]
    named = read_jobs(options["jobs"], index)
    chosen = failed if named is None else [index.jobs[number] for number in named]
    for job in chosen:
        if job.state != "failed":
            raise SettingError("jobs", f"={job.number}: this job is {job.state}; sweep retry runs failed jobs.")
        if options["from"] == "checkpoint" and not has_checkpoint(directory / job.directory):
            raise SettingError("from", f"=checkpoint: job {job.number} has no checkpoint; use from=start.")
        check_digest(directory / job.directory, job)
    if not chosen:
        tell("No job has failed, so there is nothing to retry.")
        return 0
    sweep = recorded_sweep(index)
    check_runnable(sweep, read_recorded(directory / chosen[0].directory), index.objective.mode, trust)
    changed = _changed_sources([directory / job.directory for job in chosen], trust)
    if changed:
        tell(f"The source has changed since these jobs ran: {', '.join(changed)}.")
    for job in chosen:
        index = index.with_job(_again(directory, job, options["from"]))
    numbers = [job.number for job in chosen]
    return carry_on(directory, index, sweep, trust, only=numbers)


def _changed_sources(run_dirs: Sequence[Path], trust: Trust) -> list[str]:
    """Return the packages whose source code differs from the source code with which one of the jobs ran."""
    recorded = [section(read_environment(run_dir), "source") for run_dir in run_dirs if has_begun(run_dir)]
    now = source_digests(trust)
    return [name for name in now if any(name in each and each[name] != now[name] for each in recorded)]


def _again(directory: Path, job: JobEntry, start: str | None) -> JobEntry:
    """Return the entry of a failed job that runs again. If it begins at step 0, set its directory aside.

    A job that raised an error begins at step 0, because its checkpoints may contain the cause of the error. A job that
    was killed, was out of time or memory, or found a full disk resumes. ``start`` overrides these rules.
    """
    run_dir = directory / job.directory
    raised = not job.attempts or job.attempts[-1].end == _RAISED
    is_full_disk = job.error is not None and "No space left" in job.error
    from_start = start == "start" if start is not None else raised and not is_full_disk
    if from_start or not has_checkpoint(run_dir):
        if has_begun(run_dir):
            set_aside(run_dir)
        blank = JobEntry(
            number=job.number,
            group=job.group,
            seed=job.seed,
            overrides=job.overrides,
            directory=job.directory,
            config_sha256=job.config_sha256,
        )
        return replace(
            blank,
            num_steps=job.num_steps,
            num_samples=job.num_samples,
            notes=job.notes,
            changes=job.changes,
            attempts=job.attempts,
        )
    return replace(job, state="interrupted", error=None)


def _stop(directory: Path, overrides: Sequence[str]) -> int:
    """Ask the runner of a sweep to end jobs. Without a runner, ask Slurm, and write a stop file for other jobs."""
    options, rest = split_options(overrides, {"jobs": None})
    if rest:
        raise SettingError(rest[0], ": expected no override, or jobs=3,7.")
    index = reconciled(directory, read_index(directory))
    jobs = read_jobs(options["jobs"], index)
    if is_locked(directory):
        write_request(directory, StopRequest(None if jobs is None else tuple(jobs)))
        numbers = [job.number for job in index.jobs if job.state == "running" and (jobs is None or job.number in jobs)]
        what = "No job of these is running; the runner starts none of them"
        if numbers:
            names = f"Job{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
            what = f"{names} save{'s' * (len(numbers) == 1)} and end{'s' * (len(numbers) == 1)}"
            what += "; no further job starts" if jobs is None else ""
        tell(f"{what}. To see the sweep: {shell_line(['loopwright', 'sweep', *words_on('show', directory, ())])}")
        return 0
    running = [job for job in index.jobs if job.state == "running" and (jobs is None or job.number in jobs)]
    slurm_ids = [slurm_id for job in running if (slurm_id := open_slurm_id(job)) is not None]
    if slurm_ids:
        stop_in_slurm(slurm_ids)
        tell(f"{len(slurm_ids)} jobs in Slurm save and end, or leave the queue.")
        running = [job for job in running if open_slurm_id(job) is None]
        if not running:
            return 0
    for job in running:
        write_stop_file(directory / job.directory, INTERRUPT, "sweep stop")
    if running:
        num = len(running)
        what = "1 running job ends at its" if num == 1 else f"{num} running jobs end at their"
        tell(f"{what} next log step or validation.")
    else:
        tell("No job of this sweep is running.")
    return 0
