"""`run_sweep_job`: runs one job of a sweep in this process, from the files in the directory of the sweep."""

from __future__ import annotations

import traceback
from contextlib import suppress
from pathlib import Path

from loopwright.errors import CheckpointError, SaveError, SettingError
from loopwright.experiment.console.messages import one_line_of
from loopwright.experiment.gate.masking import masking
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.changes import as_changes
from loopwright.experiment.jobs.job_settings import at_config_path
from loopwright.experiment.jobs.recorded import read_recorded
from loopwright.experiment.launch.resume_run import begin_run, resume_run
from loopwright.experiment.rundir.run_log import log_only, run_log
from loopwright.experiment.rundir.stop_file import STOP_FILE
from loopwright.experiment.sweep.attempts import set_aside_unsaved
from loopwright.experiment.sweep.index import JobEntry, SweepIndex
from loopwright.experiment.sweep.index_file import read_index
from loopwright.experiment.sweep.job_files import check_digest, process_words, read_choices
from loopwright.experiment.sweep.launchers import JobOutcome
from loopwright.records import steps_in


def run_sweep_job(sweep_dir: Path, number: int, trust: Trust, *, is_quiet: bool) -> JobOutcome:
    """Begin a job, or resume it from its newest valid checkpoint.

    Args:
        sweep_dir: directory of the sweep.
        number: number of the job.
        trust: packages that the user trusts.
        is_quiet: whether to print nothing.
    """
    try:
        index = read_index(sweep_dir)
        if not 0 <= number < len(index.jobs):
            raise SettingError("jobs", f"={number}: expected a number below {len(index.jobs)}.")
        job = index.jobs[number]
        directory = sweep_dir / job.directory
        check_digest(directory, job)
        config = read_recorded(directory)
        with suppress(FileNotFoundError):
            (directory / STOP_FILE).unlink()  # a request that ended an earlier attempt
        if steps_in(directory):
            words = ["loopwright", *process_words(trust.flags, sweep_dir, number)]
            return JobOutcome(exit_code=resume_run(directory, config, config, (), words, trust, is_quiet=is_quiet))
        set_aside_unsaved(directory)
        code = begin_run(
            directory,
            config,
            job.overrides,
            words_alone(index, job),
            trust,
            chosen=read_choices(directory),
            notes=job.notes,
            changes=as_changes(job.changes),
            cwd=index.cwd,
            process_words=["loopwright", *process_words(trust.flags, sweep_dir, number)],
            is_quiet=is_quiet,
        )
        return JobOutcome(exit_code=code)
    except KeyboardInterrupt:  # a second signal arrived while the end of the job was being recorded
        return JobOutcome(exit_code=130, error="interrupted")
    except SystemExit as exit:
        return JobOutcome(exit_code=exit.code if isinstance(exit.code, int) else 1, error="interrupted")
    except CheckpointError as error:
        return JobOutcome(exit_code=3, error=str(error))
    except Exception as error:  # noqa: BLE001  (an error in one job does not end the sweep)
        _log_traceback(sweep_dir / str(number), error, trust)
        if isinstance(error, SettingError):
            return JobOutcome(exit_code=2, error=str(at_config_path(error)))
        return JobOutcome(exit_code=1, error=one_line_of(error))


def _log_traceback(run_dir: Path, error: Exception, trust: Trust) -> None:
    """Append to ``run.log`` the traceback of an error that was raised before the run began."""
    if not run_dir.is_dir():
        return
    with suppress(SaveError), run_log(run_dir / "run.log", masking(trust)):
        log_only(f"failed: {''.join(traceback.format_exception(error)).rstrip()}")


def words_alone(index: SweepIndex, job: JobEntry) -> list[str]:
    """Return the words of a command line that runs only this job, in a directory of its own."""
    flags = [] if index.config_dir is None else [f"--config-dir={index.config_dir}"]
    return ["loopwright", *flags, *index.trust, *job.overrides]
