"""`TpeSearch`: a search that learns from earlier groups, with the tree-structured Parzen estimator of Optuna.

For each proposal, a new study of Optuna is built from the trials. Its sampler gets a seed that depends only on the seed
of the search, on the number of the proposal, and on how often Optuna has repeated earlier values. With one job at a
time, a sweep that is interrupted and resumed therefore makes the same proposals.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwright.errors import SettingError
from loopwright.experiment.sweep.index import Factor
from loopwright.experiment.sweep.search.proposals import (
    Trial,
    bounds_of,
    draw_unseen,
    extend,
    is_in_space,
    rounded,
    text_of_value,
    text_of_values,
)
from loopwright.regular_files import replace_file

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_NUM_RANDOM = 10  # the estimator is used when this number of groups is done or pruned; before, values are random
_MAX_ASKS = 10  # Optuna is asked at most this often for one proposal


@dataclass(frozen=True, slots=True)
class TpeSearch:
    """Proposes values near the values of the best groups (``pip install 'loopwright[optuna]'``).

    The method is Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (2011), section 4, as Optuna implements
    it, with one joint estimate for all factors. A failed group, or a group whose objective is not finite, is ignored by
    the estimate. A running group counts as a bad group, so that groups that run at the same time differ. Groups outside
    the space are ignored.

    Optuna can repeat a combination of values. The repeated values then also count as a running group, and Optuna is
    asked again. After 10 repetitions, the values are drawn at random.

    Args:
        factors: space of the search. Listed values have no order.
        seed: seed of the search.
        num_proposals: number of groups of the whole sweep.
        mode: "min" or "max": whether a smaller or a larger objective is better.
        first: values of the first group, such as the values of the configuration. The first group is drawn instead if
            ``first`` is None or outside the space.

    Raises:
        SettingError: if Optuna is not installed.
    """

    factors: Sequence[Factor]
    seed: int
    num_proposals: int
    mode: str
    first: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check that Optuna is installed."""
        if find_spec("optuna") is None:
            problem = "=tpe: needs optuna, which is not installed; pip install 'loopwright[optuna]'."
            raise SettingError("sweep.search", problem)

    def propose(self, trials: Sequence[Trial], count: int) -> list[dict[str, Any]]:
        """Return the values of new groups, as `Search` describes."""
        return extend(trials, min(count, self.num_proposals - len(trials)), self.factors, self.first, self._draw)

    def write_log(self, file: Path, trials: Sequence[Trial]) -> None:
        """Replace ``file`` by a journal of Optuna with all trials, for ``optuna-dashboard``. The search never reads it.

        Raises:
            OSError: if the file cannot be written.
        """
        from optuna.storages import JournalStorage  # optional dependency
        from optuna.storages.journal import JournalFileBackend

        with _quiet(), tempfile.TemporaryDirectory() as folder:
            journal = Path(folder) / "study.log"
            self._study(trials, storage=JournalStorage(JournalFileBackend(str(journal))))
            replace_file(file, journal.read_bytes())

    def _draw(self, known: Sequence[Trial], seen: AbstractSet[str]) -> dict[str, Any]:
        """Return proposal ``len(known)``. Its values differ from the values in ``seen``."""
        trials = list(known)
        for attempt in range(_MAX_ASKS):
            values = self._ask(trials, f"{self.seed}:{len(known)}:{attempt}")
            if text_of_values(values) not in seen:
                return values
            trials.append(Trial(number=len(trials), values=values, state="running", value=None, intermediate={}))
        return draw_unseen(self.factors, random.Random(f"{self.seed}:{len(known)}"), seen)

    def _ask(self, trials: Sequence[Trial], seed_text: str) -> dict[str, Any]:
        from optuna.samplers import TPESampler  # optional dependency

        with _quiet():
            seed = int.from_bytes(hashlib.sha256(seed_text.encode()).digest()[:4], "big")
            sampler = TPESampler(seed=seed, n_startup_trials=_NUM_RANDOM, multivariate=True, constant_liar=True)
            asked = self._study(trials, sampler).ask({each.key: _distribution(each) for each in self.factors})
        return {factor.key: _value(factor, asked.params[factor.key]) for factor in self.factors}

    def _study(
        self, trials: Sequence[Trial], sampler: BaseSampler | None = None, storage: BaseStorage | None = None
    ) -> Study:
        """Return a new study with all trials in the space, in the order of their numbers."""
        from optuna.study import StudyDirection, create_study  # optional dependency

        direction = StudyDirection.MAXIMIZE if self.mode == "max" else StudyDirection.MINIMIZE
        study = create_study(storage=storage, sampler=sampler, study_name="sweep", direction=direction)
        for trial in sorted(trials, key=lambda trial: trial.number):
            if is_in_space(self.factors, trial.values):
                study.add_trial(_to_optuna(self.factors, trial))
        return study


def _to_optuna(factors: Sequence[Factor], trial: Trial) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial  # optional dependency

    is_finite = trial.value is not None and math.isfinite(trial.value)
    done = TrialState.COMPLETE if is_finite else TrialState.FAIL
    states = {"done": done, "failed": TrialState.FAIL, "pruned": TrialState.PRUNED}
    state = states.get(trial.state, TrialState.RUNNING)
    return create_trial(
        state=state,
        value=trial.value if state is TrialState.COMPLETE else None,
        params={factor.key: _param(factor, trial.values[factor.key]) for factor in factors},
        distributions={each.key: _distribution(each) for each in factors},
        intermediate_values={step: value for step, value in trial.intermediate.items() if math.isfinite(value)},
    )


def _distribution(factor: Factor) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # optional dependency

    if factor.values is not None:
        return CategoricalDistribution(tuple(dict.fromkeys(text_of_value(value) for value in factor.values)))
    low, high = bounds_of(factor)
    if factor.is_int:
        return IntDistribution(int(low), int(high), log=factor.is_log)
    return FloatDistribution(low, high, log=factor.is_log)


def _param(factor: Factor, value: Any) -> Any:
    """Return the value for Optuna. A listed value becomes JSON, because for Optuna, 1, 1.0 and True are equal."""
    return value if factor.values is None else text_of_value(value)


def _value(factor: Factor, param: Any) -> Any:
    if factor.values is None:
        return rounded(factor, param)
    return next(each for each in factor.values if text_of_value(each) == param)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log messages and warnings of Optuna, such as warnings of version 4.9 about experimental arguments."""
    from optuna.logging import get_verbosity, set_verbosity  # optional dependency

    before = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        set_verbosity(before)
