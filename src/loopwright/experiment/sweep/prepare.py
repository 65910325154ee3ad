"""Functions that make the index of a new sweep, and that write the directories of its jobs."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopwright import __version__
from loopwright.errors import SaveError, SettingError
from loopwright.experiment.compose.hydra_files import write_hydra_files
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.gate.masking import masking
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.job_plan import JobPlan
from loopwright.experiment.rundir.writer import config_text
from loopwright.experiment.sweep.index import Factor, Group, JobEntry, Objective, SweepIndex
from loopwright.experiment.sweep.read_sweep import Sweep
from loopwright.experiment.sweep.reconcile import now

_DIRECTORY = "hydra.sweep.dir"


def write_job(directory: Path, number: int, job: Job, plan: JobPlan | None, mask: Callable[[str], str]) -> str:
    """Write ``config.yaml``, ``plan.txt`` and ``.hydra/`` of a job. Return the SHA-256 of ``config.yaml``.

    Args:
        directory: directory of the sweep.
        number: number of the job.
        job: settled job.
        plan: plan of the job; None if it is not known before the job runs. Then ``plan.txt`` is not written.
        mask: function that masks the values of environment variables in the text of a file.

    Raises:
        SaveError: if a file cannot be written.
    """
    run_dir = directory / str(number)
    try:
        run_dir.mkdir()
        text = mask(config_text(job.recorded))
        (run_dir / "config.yaml").write_text(text, encoding="utf-8")
        if plan is not None:
            (run_dir / "plan.txt").write_text(mask(plan.text.rstrip("\n") + "\n"), encoding="utf-8")
    except OSError as error:
        raise SaveError(f"{error.filename}: cannot be written: {error.strerror or error}") from error
    source = job.source
    if source is not None:
        write_hydra_files(run_dir, source, number)
    return hashlib.sha256(text.encode()).hexdigest()


def job_entry(number: int, group: int, job: Job, plan: JobPlan | None, digest: str) -> JobEntry:
    """Return the entry of a job that has not begun."""
    assert job.settings.seed is not None, "settle() chooses a seed"
    fit, size = (None, None) if plan is None else (plan.plan, plan.batch_size)
    return JobEntry(
        number=number,
        group=group,
        seed=job.settings.seed,
        overrides=tuple(word for word in job.overrides if not word.startswith("hydra.")),
        directory=str(number),
        config_sha256=digest,
        num_steps=None if fit is None else fit.stop_step,
        num_samples=None if fit is None or size is None else fit.total_micro_batches * size,
        notes=job.notes,
        changes=job.changes,
    )


def make_index(line: CommandLine, name: str, sweep: Sweep, objective: Objective, cwd: str) -> SweepIndex:
    """Return the index of a new sweep, without jobs and groups.

    Args:
        line: command line of the sweep.
        name: name of the folder of the sweep.
        sweep: settings, factors and overrides of the sweep.
        objective: metric that the jobs are compared by.
        cwd: current directory.
    """
    return SweepIndex(
        id=secrets.token_hex(6),
        name=name,
        created=now(),
        loopwright=__version__,
        command=("loopwright", *line.words),
        overrides=typed_words(sweep.overrides),
        config_dir=line.config_dir,
        trust=tuple(line.permissions),
        cwd=cwd,
        state="running",
        objective=objective,
        factors=sweep.swept.factors,
        own_values=sweep.own_values,
        seeds=sweep.swept.seeds,
        settings=sweep.settings.as_json(),
        groups=(),
        best=None,
        jobs=(),
    )


def typed_words(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides of a sweep without the override of its directory."""
    return tuple(word for word in overrides if not word.startswith(f"{_DIRECTORY}="))


def with_jobs(
    directory: Path, index: SweepIndex, sweep: Sweep, checked: Sequence[tuple[Job, JobPlan | None]], trust: Trust
) -> SweepIndex:
    """Write the directories of further jobs, and return the index with these jobs.

    Args:
        directory: directory of the sweep.
        index: index of the sweep.
        sweep: settings and factors of the sweep.
        checked: checked jobs with their plans.
        trust: packages that the user trusts.
    """
    groups, entries, mask = Groups(index.groups), list[JobEntry](), masking(trust)
    for job, plan in checked:
        number = len(index.jobs) + len(entries)
        digest = write_job(directory, number, job, plan, mask)
        label = label_of(job.overrides, sweep.swept.factors)
        group = groups.number_of(sweep.swept.values_of(own_words(job.overrides, sweep.swept.factors)), label)
        entries.append(job_entry(number, group, job, plan, digest))
    seeds = tuple(dict.fromkeys((*index.seeds, *(entry.seed for entry in entries))))
    return replace(index, groups=groups.all, seeds=seeds, jobs=(*index.jobs, *entries))


def own_words(overrides: Sequence[str], factors: Sequence[Factor]) -> list[str]:
    """Return the overrides of a job that set factors."""
    keys = {factor.key for factor in factors}
    return [word for word in overrides if word.partition("=")[0].lstrip("+") in keys]


def label_of(overrides: Sequence[str], factors: Sequence[Factor]) -> str:
    """Return the overrides of a job that set factors, as the label of its group."""
    return " ".join(own_words(overrides, factors)) or "as configured"


class Groups:
    """Numbers the groups of a sweep in the order in which their first jobs appear.

    Args:
        groups: groups that exist already.
    """

    def __init__(self, groups: Sequence[Group] = ()) -> None:
        self._groups = list(groups)
        self._numbers = {_key(group.values): group.number for group in groups}

    def number_of(self, values: Mapping[str, Any], label: str) -> int:
        """Return the number of the group with these values. Add a group if there is none.

        Args:
            values: value of each factor that the job overrides.
            label: label of the group, if it is new.
        """
        number = self._numbers.setdefault(_key(values), len(self._groups))
        if number == len(self._groups):
            self._groups.append(Group(number=number, values=dict(values), label=label))
        return number

    @property
    def all(self) -> tuple[Group, ...]:
        """The groups in the order of their numbers."""
        return tuple(self._groups)


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def common_objective(jobs: Sequence[Job]) -> Objective:
    """Return the objective of all jobs.

    Raises:
        SettingError: if the jobs have different objectives.
    """
    found = {(job.settings.objective, job.settings.objective_mode): job.number for job in jobs}
    if len(found) > 1:
        (first, _), (second, _) = list(found.items())[:2]
        shown = " and ".join(f"{name} ({mode})" for name, mode in (first, second))
        raise SettingError("objective", f": the jobs have different objectives, {shown}; give one for all jobs.")
    (name, mode), _ = next(iter(found.items()))
    return Objective(name=name, mode=mode)
