"""`PruningWatch`, which stops bad jobs of a sweep early."""

from __future__ import annotations

from collections.abc import Mapping

from loopwright.experiment.rundir.stop_file import PRUNER, write_stop_file
from loopwright.experiment.sweep.index import JobEntry
from loopwright.experiment.sweep.screen.following import RunFollower
from loopwright.experiment.sweep.search.pruning import Pruner, make_pruner
from loopwright.experiment.sweep.store import SweepStore


class PruningWatch:
    """Compares the running jobs with the other jobs after each validation, and stops bad ones.

    Args:
        store: index of the sweep.
        pruner: rule that decides.
    """

    def __init__(self, store: SweepStore, pruner: Pruner) -> None:
        self._store = store
        self._pruner = pruner
        self._followers: dict[int, RunFollower] = {}
        self._curves: dict[int, dict[int, float]] = {}

    def look(self, job: JobEntry) -> None:
        """Ask a running job to end if the rule says so. Called several times a second for each running job."""
        before = len(self._curve(job))
        curve = self._read(job)
        if len(curve) == before or job.num_steps is None or max(curve) >= job.num_steps:
            return
        index = self._store.index
        others = [self._read(each) for each in index.jobs if each.group != job.group and each.seed == job.seed]
        if self._pruner.should_prune(curve, others):
            best = index.objective.name
            reason = f"{best} after step {max(curve):,} was worse than in other jobs"
            write_stop_file(self._store.directory / job.directory, PRUNER, reason)

    def _curve(self, job: JobEntry) -> dict[int, float]:
        return self._curves.setdefault(job.number, {})

    def _read(self, job: JobEntry) -> Mapping[int, float]:
        follower = self._followers.setdefault(job.number, RunFollower(self._store.directory / job.directory))
        name, curve = self._store.index.objective.name, self._curve(job)
        curve.update({step: value for step, key, value in follower.read() if key == name})
        return curve


def pruning_watch(store: SweepStore, name: str) -> PruningWatch | None:
    """Return the watch for the setting ``sweep.pruner``; None if no job is pruned."""
    pruner = make_pruner(name, store.index.objective.mode)
    return None if pruner is None else PruningWatch(store, pruner)
