"""Functions that choose the seed and the number of threads of a job, and check the job before it runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, cast

from loopwright.checkpoint import choose, is_named
from loopwright.device import choose_num_threads, resolve_kind
from loopwright.errors import DataError, SettingError
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs import objects as build
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.job_checker import CheckedJob, JobChecker
from loopwright.experiment.jobs.job_errors import JobErrors
from loopwright.experiment.jobs.job_plan import JobPlan
from loopwright.experiment.jobs.process import process_settings
from loopwright.experiment.jobs.recorded_data import (
    data_differences,
    located,
    started_in,
    types_data,
    with_directories,
)
from loopwright.seeding import draw_seed


@contextmanager
def checked(
    job: Job, trust: Trust, default_num_threads: int | None = None, *, compares_data: bool = True
) -> Iterator[CheckedJob]:
    """Check a job and build its objects. While the context is open, torch uses the job's threads and determinism.

    Args:
        job: job with a composed or recorded configuration.
        trust: packages that the user trusts.
        default_num_threads: number of threads for CPU operations if the configuration sets no number. None:
            `loopwright.device.choose_num_threads` chooses the number.
        compares_data: whether to refuse data that differ from the recorded data of the run whose checkpoint is loaded.

    Raises:
        SettingError: for an invalid setting.
        CheckpointError: for a checkpoint that does not exist.
    """
    checker = JobChecker(trust, builds_trusted=True, compares_data=compares_data)
    settled = settle(job, checker, default_num_threads)
    with applied(settled):
        # Assigning the checked job to a variable here would keep its objects in memory after the caller drops them.
        yield cast(CheckedJob, checker.check(checker.fill(settled)))


@contextmanager
def checked_again(
    make_job: Callable[[dict[str, Any]], Job],
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    trust: Trust,
    default_num_threads: int | None = None,
    *,
    compares_data: bool = True,
) -> Iterator[CheckedJob]:
    """Check the job of a recorded run and build its objects, as `checked` does.

    Args:
        make_job: function that applies the user's overrides to a copy of the configuration and returns the job.
        config: recorded configuration, without overrides.
        summary: summary of the recorded run.
        trust: packages that the user trusts.
        default_num_threads: number of threads for CPU operations if the configuration sets no number. None:
            `loopwright.device.choose_num_threads` chooses the number.
        compares_data: whether to refuse data that differ from the recorded data of the run whose checkpoint is loaded.

    Raises:
        SettingError: for an invalid setting. If a data file does not exist, the message names the directory in which
            the run was started.
        CheckpointError: for a checkpoint that does not exist.
    """
    job = make_job(_with_recorded_data(make_job, config, summary, trust))
    try:
        with ExitStack() as stack:
            # Assigning the checked job to a variable here would keep its objects in memory after the caller drops them.
            yield stack.enter_context(checked(job, trust, default_num_threads, compares_data=compares_data))
    except SettingError as error:
        raise with_directories(error, summary) from error.__cause__


def _with_recorded_data(
    make_job: Callable[[dict[str, Any]], Job], config: Mapping[str, Any], summary: Mapping[str, Any], trust: Trust
) -> dict[str, Any]:
    """Return the configuration with the paths of the recorded data.

    A relative path can refer to the directory in which the run was started, or to the current directory. If both
    directories are possible and no override chooses other data, this function builds the data to find the directory
    with the recorded data.
    """
    there, here = located(config, started_in(summary)), copy.deepcopy(dict(config))
    if there.get("data") == here.get("data") or types_data(make_job(there).overrides):
        return there
    checker = JobChecker(trust, builds_trusted=True)
    for candidate in (there, here):
        try:
            if not data_differences(summary, build.build_data(settle(make_job(candidate), checker), trust)):
                return candidate
        except (SettingError, DataError):  # a later check raises this error if no directory has the recorded data
            continue
    return there


def check_jobs(jobs: Sequence[Job], trust: Trust) -> list[Job]:
    """Check the jobs of a sweep. The objects built for the checks are not kept.

    Sections that name classes of trusted packages are not built, because building them may need much time or memory.

    Returns:
        The jobs, with a seed and a number of threads in each job.

    Raises:
        SettingError: for invalid settings; the message names the problems of all jobs.
        CheckpointError: for a checkpoint that does not exist, and for a pattern that matches no checkpoint.
    """
    return [job for job, _ in check_each(jobs, trust, builds_trusted=False)]


def check_each(
    jobs: Sequence[Job], trust: Trust, *, builds_trusted: bool, num_threads: int | None = None
) -> Iterator[tuple[Job, JobPlan | None]]:
    """Check the jobs of a sweep one after another. Yield each job, with a seed and a number of threads, and its plan.

    The plan is None if ``builds_trusted`` is False and a section of the job names a class of a trusted package. A job
    with an invalid setting is not yielded; the error is raised after the last job has been checked.

    All jobs whose configuration sets no number of threads get the same number: ``num_threads``, or the number that
    suits the first job.

    Raises:
        SettingError: for invalid settings. If there are several jobs, the message names the problems of all jobs, and
            the numbers of the jobs where not all jobs have the problem.
        CheckpointError: for a checkpoint that does not exist, and for a pattern that matches no checkpoint.
    """
    checker, errors = JobChecker(trust, builds_trusted=builds_trusted), JobErrors()
    for index, job in enumerate(jobs):
        try:
            settled = settle(job, checker, num_threads)
            num_threads = num_threads or settled.num_threads
            with applied(settled):
                settled = checker.fill(settled)
                plan = _plan_of(checker.check(settled))
        except SettingError as error:
            errors.add(job.number, job.label, error)
            continue
        except Exception:
            errors.raise_found(index, len(jobs))
            raise
        yield settled, plan
    errors.raise_found(len(jobs), len(jobs))


def _plan_of(found: CheckedJob | None) -> JobPlan | None:
    return None if found is None else found.plan


def settle(job: Job, checker: JobChecker, num_threads: int | None = None) -> Job:
    """Build the device settings of a job. Draw a seed and choose a number of threads if the configuration sets none.

    A device kind "auto" is replaced by the kind of the chosen device. A resumed run then uses a device of this kind.

    Args:
        job: job with a composed or recorded configuration.
        checker: checker that will check the job. It builds a model without weights, because the default number of
            threads depends on the number of parameters.
        num_threads: number of threads if the configuration sets none; None: `choose_num_threads` chooses the number.

    Raises:
        SettingError: for arguments that a class or function named by a ``_target_`` does not accept, for an invalid
            section ``device``, and for a section that needs a package that is not installed.
        CheckpointError: if a path such as ``outputs/mine/best`` names no checkpoint.
    """
    job = _with_named_checkpoints(job)
    config = job.config
    checker.check_arguments(job)
    built = checker.device(job)
    if built.kind == "auto":
        built = replace(built, kind=resolve_kind(built.kind))
    num_threads = built.num_threads or num_threads
    if num_threads is None:
        num_threads = choose_num_threads(built, checker.num_parameters(job))
    seed = draw_seed() if job.settings.seed is None else job.settings.seed
    device = config["device"]
    if "num_threads" in device:
        device = {**device, "num_threads": num_threads}
    if "kind" in device:
        device = {**device, "kind": built.kind}
    return replace(
        job,
        config={**config, "seed": seed, "device": device},
        settings=replace(job.settings, seed=seed),
        device=built,
        num_threads=num_threads,
    )


def _with_named_checkpoints(job: Job) -> Job:
    """Replace a path such as ``outputs/mine/best`` by the path of the checkpoint. The run then records this path.

    Raises:
        CheckpointError: if there is no such checkpoint.
    """
    paths = {name: getattr(job.settings, name) for name in ("ckpt_path", "init_from")}
    found: dict[str, Any] = {
        name: str(choose(path).folder) for name, path in paths.items() if path is not None and is_named(path)
    }
    return replace(job, config={**job.config, **found}, settings=replace(job.settings, **found)) if found else job


@contextmanager
def applied(job: Job) -> Iterator[None]:
    """While the context is open, apply the number of threads and the determinism of a job returned by `settle`."""
    assert job.num_threads, "settle() chooses a number"
    with process_settings(job.num_threads, deterministic=job.settings.deterministic):
        yield
