"""`SweepIndex`: everything that is known about a sweep, as data.

This module and `loopwright.experiment.sweep.index_file` import neither torch nor Hydra, so that a table of results is
printed quickly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

SCHEMA = 1
ENDED = ("done", "pruned", "failed", "skipped")
LEFT = {"pending", "interrupted", "running"}  # a process that has outlived its runner may still run a job
BAD = {"failed", "skipped"}
GOOD = ("done", "pruned")  # states of jobs that have a result


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a job.

    Attributes:
        started: time of the start, in the format of ISO 8601.
        host: name of the machine.
        where: process or slot, such as "pid 4711", "gpu 1" or "slurm 1234_7".
        ended: time of the end; None while the attempt runs.
        end: how the attempt ended, such as "completed", "raised", "killed by SIGKILL", "out of time" or "lost".
        exit_code: exit code of the process, or minus the number of the signal that killed it; None if unknown.
        resumed_from: name of the checkpoint folder from which the attempt resumed; None if it began at step 0.
    """

    started: str
    host: str
    where: str
    ended: str | None = None
    end: str | None = None
    exit_code: int | None = None
    resumed_from: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEntry:
    """One job of a sweep, with its result.

    Attributes:
        number: index of the job in the sweep, from 0.
        group: number of its group. The jobs of a group differ only in their seeds.
        seed: seed of the job.
        overrides: overrides of the job, without settings of the sweep.
        directory: run directory, relative to the directory of the sweep.
        config_sha256: SHA-256 of the file ``config.yaml`` that was written before the sweep began.
        state: "pending", "running", "done", "pruned", "failed", "interrupted" or "skipped".
        error: why the job failed, on one line; None if it did not fail.
        objective: value of the objective in the last validation; None if there is none.
        metrics: metrics at the end of the run.
        best: best value of the objective, as ``{name, step, value}``; None if unknown.
        global_step: number of steps that the run completed.
        num_steps: number of steps in the plan of the run; None if the job only validates.
        num_samples: number of samples in the plan of the run; None if unknown.
        notes: lines about settings, which the plan of the run contains.
        changes: for each setting that differs from the configuration of the experiment, both values.
        seconds: duration of the run, over all attempts that continued one another.
        weights_sha256: SHA-256 of the final weights.
        attempts: tries at this job, in the order of time.
    """

    number: int
    group: int
    seed: int
    overrides: tuple[str, ...]
    directory: str
    config_sha256: str
    state: str = "pending"
    error: str | None = None
    objective: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, Any] | None = None
    global_step: int = 0
    num_steps: int | None = None
    num_samples: int | None = None
    notes: tuple[str, ...] = ()
    changes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    seconds: float = 0.0
    weights_sha256: str | None = None
    attempts: tuple[Attempt, ...] = ()

    def with_attempt(self, **changes: Any) -> JobEntry:
        """Return a copy in which the newest attempt has the changed fields."""
        return replace(self, attempts=(*self.attempts[:-1], replace(self.attempts[-1], **changes)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A swept setting other than the seed.

    Attributes:
        key: name of the setting, such as ``optimizer.lr`` or ``model``.
        values: swept values in the order typed; None for an interval.
        low, high: bounds of an interval; None for a list of values.
        is_log: whether an interval is searched on a logarithmic scale.
        is_int: whether the values of an interval are whole numbers.
    """

    key: str
    values: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None
    is_log: bool = False
    is_int: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The jobs with equal values of all factors.

    Attributes:
        number: index of the group, from 0.
        values: value of each factor by its key.
        label: overrides of the factors, such as ``loop.grad_accum_steps=4``; "as configured" if there is no factor.
        num_done: number of jobs with a result.
        mean: mean of the objective over these jobs; None if there is no result.
        deviation: standard deviation of the objective, with n - 1 in the denominator; None with fewer than 2 results.
    """

    number: int
    values: Mapping[str, Any]
    label: str
    num_done: int = 0
    mean: float | None = None
    deviation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BestGroup:
    """The group with the best mean among the groups whose jobs are all done."""

    group: int
    overrides: tuple[str, ...]
    mean: float
    deviation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The metric that the jobs are compared by, and whether "min" or "max" is better."""

    name: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepIndex:
    """Everything that is known about a sweep.

    Attributes:
        id: 12 hexadecimal digits.
        name: name of the folder of the sweep in ``outputs/``.
        created: time of creation, in the format of ISO 8601.
        loopwright: version that created the sweep.
        command: words of the command line, as typed.
        overrides: overrides of the command line, as typed, without ``hydra.sweep.dir``.
        config_dir: value of ``--config-dir``; None if it was not given.
        trust: permission flags of the command line, such as ``--trust=NAME``.
        cwd: directory in which the sweep was started. Relative paths of data files refer to it.
        state: "running", "done", "failed" or "interrupted".
        objective: metric that the jobs are compared by.
        factors: swept settings other than the seed, in the order typed.
        own_values: values of the factors in the configuration without these overrides. A factor that the configuration
            lacks is left out.
        seeds: seeds of the jobs.
        settings: resolved node ``sweep`` of the configuration.
        groups: groups, in the order of their numbers.
        best: best group; None if no group is done.
        jobs: jobs, in the order of their numbers.
    """

    id: str
    name: str
    created: str
    loopwright: str
    command: tuple[str, ...]
    overrides: tuple[str, ...]
    config_dir: str | None
    trust: tuple[str, ...]
    cwd: str
    state: str
    objective: Objective
    factors: tuple[Factor, ...]
    own_values: Mapping[str, Any]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    groups: tuple[Group, ...]
    best: BestGroup | None
    jobs: tuple[JobEntry, ...]
    schema: int = SCHEMA

    def with_job(self, job: JobEntry) -> SweepIndex:
        """Return a copy in which ``job`` replaces the job of the same number."""
        jobs = list(self.jobs)
        jobs[job.number] = job
        return replace(self, jobs=tuple(jobs))

    def jobs_of(self, group: int) -> list[JobEntry]:
        """Return the jobs of a group, in the order of their numbers."""
        return [job for job in self.jobs if job.group == group]


def with_results(index: SweepIndex) -> SweepIndex:
    """Return a copy whose groups and best group are computed from its jobs."""
    by_group: dict[int, list[JobEntry]] = {}
    for job in index.jobs:
        by_group.setdefault(job.group, []).append(job)
    groups = []
    for group in index.groups:
        values = [job.objective for job in by_group.get(group.number, ()) if has_result(job)]
        mean, deviation = mean_and_deviation([value for value in values if value is not None])
        groups.append(replace(group, num_done=len(values), mean=mean, deviation=deviation))
    return replace(index, groups=tuple(groups), best=_best(groups, by_group, index.objective.mode))


def state_of(jobs: Sequence[JobEntry]) -> str:
    """Return the state of a sweep whose runner ends now: "interrupted", "failed" or "done"."""
    states = {job.state for job in jobs}
    return "interrupted" if states & LEFT else "failed" if states & BAD else "done"


def has_result(job: JobEntry) -> bool:
    """Return whether the job is done and its objective is a finite number. A pruned job is not done."""
    return job.state == "done" and job.objective is not None and math.isfinite(job.objective)


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the mean, and the standard deviation with n - 1 in the denominator; None where it is not defined."""
    if not values:
        return None, None
    try:
        mean = math.fsum(values) / len(values)
    except OverflowError:  # the sum exceeds the largest number
        mean = math.fsum(value / len(values) for value in values)
    if len(values) < 2:
        return mean, None
    return mean, math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1)


def _best(groups: Sequence[Group], jobs: Mapping[int, Sequence[JobEntry]], mode: str) -> BestGroup | None:
    """Return the group with the best mean. Of tied groups, the group with the fewest samples is returned."""
    whole = [group for group in groups if group.mean is not None and group.num_done == len(jobs[group.number])]
    if not whole:
        return None
    sign = -1.0 if mode == "max" else 1.0
    first = min(whole, key=lambda group: sign * (group.mean or 0.0))
    field_name = "num_samples" if counts_samples([job for each in jobs.values() for job in each]) else "global_step"
    costs = {group.number: sum(getattr(job, field_name) for job in jobs[group.number]) for group in whole}
    sizes = {group.number: len(jobs[group.number]) for group in whole}
    tied = tied_with(first, whole, sign)
    best = min(tied, key=lambda group: (costs[group.number] / sizes[group.number], group is not first))
    overrides = tuple(word for word in jobs[best.number][0].overrides if not word.startswith("seed="))
    assert best.mean is not None
    return BestGroup(group=best.number, overrides=overrides, mean=best.mean, deviation=best.deviation)


def tied_with(first: Group, groups: Sequence[Group], sign: float) -> list[Group]:
    """Return the groups whose mean is at most one standard error of ``first`` worse than the mean of ``first``."""
    if first.mean is None or first.deviation is None:
        return [first]
    error = first.deviation / math.sqrt(first.num_done)
    return [group for group in groups if group.mean is not None and sign * (group.mean - first.mean) <= error]


def counts_samples(jobs: Sequence[JobEntry]) -> bool:
    """Return whether tied groups are compared by their samples; otherwise by their steps."""
    return all(job.num_samples is not None for job in jobs)
