"""`Searching`, which turns the proposals of a search into jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loopwright.errors import CheckpointError
from loopwright.experiment.compose.composer import composing
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import check_each
from loopwright.experiment.jobs.job import compose_jobs
from loopwright.experiment.sweep.index import JobEntry, SweepIndex
from loopwright.experiment.sweep.prepare import with_jobs
from loopwright.experiment.sweep.read_sweep import Sweep, config_dir_of
from loopwright.experiment.sweep.search.proposals import RandomSearch, Search, Trial
from loopwright.experiment.sweep.search.tpe import TpeSearch
from loopwright.experiment.sweep.store import SweepStore
from loopwright.records import Series, read_series

_STUDY_FILE = "study.log"


class Searching:
    """Proposes the jobs of a search.

    With a pruner, only the first seed of a new group runs at first. The other seeds run if this job ends as done.

    Args:
        store: index of the sweep.
        sweep: settings and factors of the sweep.
        trust: packages that the user trusts.
        num_threads: number of threads of the jobs.

    Raises:
        SettingError: if the search needs a package that is not installed.
    """

    def __init__(self, store: SweepStore, sweep: Sweep, trust: Trust, num_threads: int) -> None:
        self._store = store
        self._sweep = sweep
        self._trust = trust
        self._num_threads = num_threads
        self._search = make_search(sweep, store.index.objective.mode)

    def propose(self, index: SweepIndex, count: int) -> Sequence[JobEntry]:
        """Add jobs to the sweep, and return them.

        These are the other seeds of groups whose first job is done. Without such groups, these are the jobs of up to
        ``count`` new groups.

        Args:
            index: index of the sweep.
            count: number of jobs that can start now.
        """
        words = self._further_seeds(index)
        if not words:
            for values in self._search.propose(trials_of(self._store.directory, index), count):
                seeds = self._sweep.swept.jobs_of(values)
                words += seeds[:1] if self._decides_by_first else seeds
        if not words:
            return []
        with composing(config_dir_of(index), self._trust.variables) as composer:
            jobs = compose_jobs(composer, words, self._trust)
        checked = list(check_each(jobs, self._trust, builds_trusted=False, num_threads=self._num_threads))
        extended = with_jobs(self._store.directory, index, self._sweep, checked, self._trust)
        self._store.set(groups=extended.groups, seeds=extended.seeds, jobs=extended.jobs)
        self._store.flush()  # the process of a job reads its entry from the file
        return extended.jobs[len(index.jobs) :]

    def write_log(self) -> None:
        """Write the journal of Optuna, for ``optuna-dashboard``, if Optuna proposes the jobs.

        Raises:
            OSError: if the file cannot be written.
        """
        if isinstance(self._search, TpeSearch):
            directory = self._store.directory
            self._search.write_log(directory / _STUDY_FILE, trials_of(directory, self._store.index))

    @property
    def _decides_by_first(self) -> bool:
        return self._sweep.settings.pruner != "none" and len(self._sweep.swept.seeds) > 1

    def _further_seeds(self, index: SweepIndex) -> list[list[str]]:
        """Return the overrides of the other seeds of each group whose first job is done."""
        if not self._decides_by_first:
            return []
        words = []
        for group in index.groups:
            begun = index.jobs_of(group.number)
            if len(begun) == 1 and begun[0].state == "done":
                words += self._sweep.swept.jobs_of(group.values)[1:]
        return words


def make_search(sweep: Sweep, mode: str) -> Search:
    """Return the search of a sweep.

    Args:
        sweep: settings and factors of the sweep.
        mode: "min" or "max": whether a smaller or a larger objective is better.

    Raises:
        SettingError: if Optuna is needed and not installed.
    """
    settings, factors = sweep.settings, sweep.swept.factors
    assert settings.num_proposals is not None, "the settings were checked"
    if settings.search == "tpe":
        return TpeSearch(factors, settings.seed, settings.num_proposals, mode, sweep.own_values)
    return RandomSearch(factors, settings.seed, settings.num_proposals, sweep.own_values)


def trials_of(directory: Path, index: SweepIndex) -> list[Trial]:
    """Return one `Trial` for each group of a sweep. A search computes its proposals from these trials."""
    trials = []
    for group in index.groups:
        jobs = index.jobs_of(group.number)
        states = {job.state for job in jobs}
        state = "done" if states == {"done"} else "running"
        if state == "running" and not states & {"pending", "running", "interrupted"}:
            state = "pruned" if "pruned" in states else "failed"
        values = group.mean if state != "pruned" else jobs[0].objective
        is_read = index.settings.get("pruner") != "none" and jobs
        curve = curve_of(directory / jobs[0].directory, index.objective.name) if is_read else {}
        trials.append(Trial(number=group.number, values=group.values, state=state, value=values, intermediate=curve))
    return trials


def curve_of(run_dir: Path, name: str) -> dict[int, float]:
    """Return the values of a metric by ``global_step``; empty if there are no values, or they cannot be read."""
    try:
        series = read_series(run_dir).get(name, Series(name, [], []))
    except CheckpointError:
        return {}
    return dict(zip(series.steps, series.values, strict=True))
