"""`TpeSearch`: a search that is cut and resumed equals a straight search; repetitions, results, and the journal."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loopwright.experiment.sweep.index import Factor
from loopwright.experiment.sweep.search.proposals import Trial, is_in_space
from loopwright.experiment.sweep.search.tpe import TpeSearch

optuna = pytest.importorskip("optuna", reason="needs the extra: pip install 'loopwright[optuna]'")
pytestmark = pytest.mark.extras

SPACE = (
    Factor(key="optimizer.lr", low=1e-4, high=1e-1, is_log=True),
    Factor(key="model.width", low=1, high=64, is_int=True),
    Factor(key="model", values=("mlp", "cnn", None, [1, 2])),
)
FIRST = {"optimizer.lr": 0.01, "model.width": 8, "model": None}


def cost(values: dict[str, Any]) -> float:
    return abs(math.log10(values["optimizer.lr"]) + 2) + (0 if values["model"] == "cnn" else 1)


def ended(number: int, values: dict[str, Any]) -> Trial:
    """Return a group with its result. Some groups fail, are pruned, or have no finite objective."""
    value = cost(values)
    trial = Trial(number=number, values=values, state="done", value=value, intermediate={10: value + 1, 20: value})
    if number % 6 == 1:
        return replace(trial, state="failed", value=None, intermediate={10: math.nan})
    if number % 6 == 2:
        return replace(trial, state="pruned", value=None, intermediate={10: value + 1, 15: math.inf})
    return replace(trial, value=math.nan) if number % 6 == 3 else trial


def search_of(num_proposals: int = 20) -> TpeSearch:
    return TpeSearch(SPACE, 7, num_proposals, "min", FIRST)


def straight(search: TpeSearch, result_of: Callable[[int, dict[str, Any]], Trial] = ended) -> list[Trial]:
    trials: list[Trial] = []
    while proposals := search.propose(trials, 1):
        trials.append(result_of(len(trials), proposals[0]))
    return trials


def read_back(trials: Sequence[Trial]) -> list[Trial]:
    """Return trials whose values were written as JSON and read again."""
    return [replace(trial, values=json.loads(json.dumps(trial.values))) for trial in trials]


def test_a_search_that_is_cut_anywhere_proposes_the_same_as_a_straight_search() -> None:
    trials = straight(search_of())
    assert trials[0].values == FIRST
    assert len(trials) == 20 and all(is_in_space(SPACE, trial.values) for trial in trials)
    for cut in (0, 1, 7, 13, 19):
        resumed = read_back(trials[:cut])[::-1]
        for trial in trials[cut : cut + 3]:
            assert search_of(100).propose(resumed, 1) == [trial.values]
            resumed.append(trial)


def test_several_proposals_at_once_equal_single_proposals_of_running_groups() -> None:
    trials = straight(search_of(14))
    search, running = search_of(18), list(trials)
    at_once = search.propose(trials, 100)
    for number in range(14, 18):
        (values,) = search.propose(running, 1)
        running.append(Trial(number=number, values=values, state="running", value=None, intermediate={}))
    assert at_once == [trial.values for trial in running[14:]]
    assert len({values["optimizer.lr"] for values in at_once}) == 4


@pytest.mark.parametrize("mode", ["min", "max"])
def test_later_proposals_are_near_the_best_groups(mode: str) -> None:
    sign = 1 if mode == "min" else -1

    def result_of(number: int, values: dict[str, Any]) -> Trial:
        return Trial(number=number, values=values, state="done", value=sign * cost(values), intermediate={})

    trials = straight(TpeSearch(SPACE, 0, 40, mode), result_of)
    values = [sign * trial.value for trial in trials if trial.value is not None]
    assert sum(values[-10:]) < 0.7 * sum(values[:10])


def test_the_results_have_an_influence_and_so_has_the_seed() -> None:
    trials = straight(search_of(16))
    better = [replace(trial, value=-100.0 + trial.number) if trial.number == 15 else trial for trial in trials]
    assert search_of().propose(trials, 1) != search_of().propose(better, 1)
    assert search_of().propose(trials, 1) != TpeSearch(SPACE, 8, 20, "min").propose(trials, 1)


def test_a_finite_space_is_exhausted_without_repetition() -> None:
    space = [Factor(key="a", values=(1, 1.0, True, "1")), Factor(key="b", low=1, high=4, is_int=True, is_log=True)]

    def result_of(number: int, values: dict[str, Any]) -> Trial:
        return Trial(number=number, values=values, state="done", value=float(values["b"]), intermediate={})

    proposed = [json.dumps(trial.values) for trial in straight(TpeSearch(space, 0, 100, "min"), result_of)]
    assert len(proposed) == len(set(proposed)) == 16


def test_groups_outside_the_space_are_ignored() -> None:
    trials = straight(search_of(12))
    moved = [replace(trials[0], values={**trials[0].values, "optimizer.lr": 5.0}), *trials[1:]]
    assert len(search_of().propose(moved, 2)) == 2


def test_optuna_prints_nothing_and_keeps_its_own_level(capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(logging.INFO)
    search_of().propose([], 3)
    assert optuna.logging.get_verbosity() == logging.INFO
    assert capfd.readouterr() == ("", "")


def test_the_journal_contains_all_groups(tmp_path: Path) -> None:
    trials = straight(search_of(5))
    for _ in range(2):  # the second time, the file is replaced
        search_of().write_log(tmp_path / "study.log", trials)
    assert [file.name for file in tmp_path.iterdir()] == ["study.log"]
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    study = optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(backend))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "PRUNED", "FAIL", "COMPLETE"]
    assert [trial.params["optimizer.lr"] for trial in study.trials] == [each.values["optimizer.lr"] for each in trials]
    assert study.trials[0].params["model"] == "null" and study.trials[0].value == trials[0].value
