"""All jobs of a sweep are composed and checked, quickly if there are many, and all their mistakes are named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.compose import composer as composer_module
from loopwright.experiment.compose.composer import Composer, composing
from loopwright.experiment.compose.leaf_overrides import LEAST_JOBS
from loopwright.experiment.gate.trust import NO_TRUST
from loopwright.experiment.jobs.check import check_each
from loopwright.experiment.jobs.job import Job, compose_jobs

pytestmark = pytest.mark.hydra

MANY = [[f"optimizer.lr={lr}", f"loop.grad_accum_steps={2 + lr % 2}", "seed=3"] for lr in range(1, LEAST_JOBS + 1)]


@pytest.fixture
def composer() -> Iterator[Composer]:
    with composing(None) as composer:
        yield composer


@pytest.fixture
def num_composed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list with one entry that counts the compositions by Hydra."""
    counts, compose = [0], composer_module.compose

    def counted(*args: Any, **kwargs: Any) -> Any:
        counts[0] += 1
        return compose(*args, **kwargs)

    monkeypatch.setattr(composer_module, "compose", counted)
    return counts


def error_of(composer: Composer, jobs: list[list[str]]) -> str:
    with pytest.raises(SettingError) as caught:
        compose_jobs(composer, jobs, NO_TRUST)
    return str(caught.value)


def values(job: Job) -> tuple[object, ...]:
    assert job.source is not None
    parts = (job.config, job.references, job.settings, job.notes, job.chosen, job.chosen_in_model, job.directory)
    return *map(repr, parts), job.overrides, repr(job.source)


@pytest.mark.slow
def test_many_jobs_equal_jobs_that_are_composed_alone(composer: Composer, num_composed: list[int]) -> None:
    jobs = compose_jobs(composer, MANY, NO_TRUST)
    assert [job.number for job in jobs] == list(range(LEAST_JOBS))
    assert num_composed[0] <= 26
    for number in (1, 30):
        (alone,) = compose_jobs(composer, [MANY[number]], NO_TRUST)
        assert values(jobs[number]) == values(alone)
    assert jobs[1].label == "optimizer.lr=2 loop.grad_accum_steps=2"
    assert jobs[0].config["model"] is jobs[-1].config["model"]


@pytest.mark.slow
def test_a_wrong_job_of_many_gets_the_error_of_a_composition_in_full(composer: Composer) -> None:
    wrong = [*MANY[:-2], ["optimizer.lrr=1"], ["optimizer.lr=1", "seed=-3"]]
    line = error_of(composer, wrong)
    first = "optimizer.lrr=1: no such key. Did you mean optimizer.lr? (job 48: optimizer.lrr=1)"
    second = "seed=-3: expected a whole number, 0 or more and below 2**63, or null. (job 49: optimizer.lr=1 seed=-3)"
    assert line == f"{first} Also: {second}"


@pytest.mark.slow
def test_a_mistake_in_every_job_is_named_once_and_few_jobs_are_composed(
    composer: Composer, num_composed: list[int]
) -> None:
    line = error_of(composer, [[*words, "loop.max_stepz=3"] for words in MANY])
    assert line == "loop.max_stepz=3: no such key. Did you mean loop.max_steps?"
    assert num_composed[0] <= 30


@pytest.mark.slow
def test_a_mistake_in_a_value_is_confirmed_once(composer: Composer, num_composed: list[int]) -> None:
    assert error_of(composer, [[*words[:2], "seed=-1"] for words in MANY]).startswith("seed=-1: expected")
    assert num_composed[0] < 50


def test_the_mistakes_of_all_jobs_are_named(composer: Composer) -> None:
    line = error_of(composer, [["model=cn"], ["seed=-1"], ["seed=1"], ["seed=-1", "deterministic=true"]])
    assert line.startswith("model=cn: no such option.") and "(job 0: model=cn) Also: seed=-1: expected" in line
    assert line.endswith("(jobs 1, 3)")


def test_equal_jobs_are_refused(composer: Composer) -> None:
    assert error_of(composer, [["optimizer.lr=1e-3"], ["optimizer.lr=0.001"]]) == (
        "jobs 0 and 1 have the same configuration: optimizer.lr=1e-3 and optimizer.lr=0.001; give each value once."
    )


def test_too_many_jobs_are_refused_before_they_are_composed(composer: Composer, num_composed: list[int]) -> None:
    assert error_of(composer, [["seed=1"]] * 10_001) == "-m: expected at most 10,000 jobs, given 10,001."
    assert num_composed == [0]


def test_the_checks_name_the_mistakes_of_all_jobs(composer: Composer) -> None:
    words = [["model.dropout=2"], ["seed=1"], ["model.dropout=2", "seed=1"], ["model.dropout=3"]]
    checked = check_each(compose_jobs(composer, words, NO_TRUST), NO_TRUST, builds_trusted=True)
    job, plan = next(checked)
    assert job.number == 1 and plan is not None
    with pytest.raises(SettingError) as caught:
        next(checked)
    first = "model.dropout=2: expected a fraction in [0, 1). (jobs 0, 2)"
    assert (
        str(caught.value) == f"{first} Also: {first.replace('=2', '=3').replace('jobs 0, 2', 'job 3: model.dropout=3')}"
    )
