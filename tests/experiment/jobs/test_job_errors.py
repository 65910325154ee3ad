"""The errors of all jobs of a sweep are one line, in which equal errors are named once."""

from __future__ import annotations

import pytest

from loopwright.errors import SettingError, refuse_type
from loopwright.experiment.jobs.job_errors import JobErrors


def said(problems: dict[int, str], num_checked: int, num_jobs: int | None = None) -> str:
    errors = JobErrors()
    for number, problem in problems.items():
        setting, _, rest = problem.partition(":")
        errors.add(number, f"seed={number}", SettingError(setting, f":{rest}"))
    with pytest.raises(SettingError) as caught:
        errors.raise_found(num_checked, num_jobs or num_checked)
    return str(caught.value)


def test_nothing_is_raised_without_errors() -> None:
    JobErrors().raise_found(3, 3)


def test_the_error_of_a_single_job_is_raised_unchanged() -> None:
    errors, error = JobErrors(), refuse_type("seed", "a", "a number")
    errors.add(0, "seed=a", error)
    with pytest.raises(SettingError) as caught:
        errors.raise_found(1, 1)
    assert caught.value is error


def test_an_error_names_its_job() -> None:
    errors = JobErrors()
    errors.add(1, "seed=a", refuse_type("seed", "a", "a number"))
    with pytest.raises(SettingError) as caught:
        errors.raise_found(2, 2)
    assert str(caught.value) == "seed='a': expected a number. (job 1: seed=a)"
    assert caught.value.setting == "seed"


def test_equal_errors_are_named_once_with_the_numbers_of_their_jobs() -> None:
    assert said(dict.fromkeys((1, 2, 3, 5), "a: wrong."), 7) == "a: wrong. (jobs 1-3, 5)"
    assert said(dict.fromkeys((1, 2), "a: wrong.") | {4: "b: bad."}, 7) == (
        "a: wrong. (jobs 1-2) Also: b: bad. (job 4: seed=4)"
    )


def test_an_error_of_every_job_has_no_number() -> None:
    assert said(dict.fromkeys(range(4), "a: wrong."), 4) == "a: wrong."
    assert said(dict.fromkeys(range(3), "a: wrong."), 3, 50) == "a: wrong."


def test_joined_problems_are_divided() -> None:
    errors = JobErrors()
    errors.add(0, "x", SettingError("a: wrong. Also: b: bad.", ""))
    errors.add(1, "y", SettingError("a: wrong.", ""))
    with pytest.raises(SettingError) as caught:
        errors.raise_found(2, 2)
    assert str(caught.value) == "a: wrong. Also: b: bad. (job 0: x)"


def test_many_errors_and_many_jobs_are_counted() -> None:
    line = said({number: f"a{number}: wrong." for number in range(13)}, 20)
    assert line.count("wrong") == 10 and line.endswith("(job 9: seed=9) and 3 more")
    assert said(dict.fromkeys(range(0, 2000, 2), "a: wrong."), 2000).endswith("(jobs 0, 2, 4, 6, 8 and 995 more)")


def test_jobs_that_were_not_checked_are_counted() -> None:
    assert said({0: "a: wrong.", 1: "b: bad."}, 2, 30) == (
        "a: wrong. (job 0: seed=0) Also: b: bad. (job 1: seed=1); the other 28 jobs were not checked"
    )
