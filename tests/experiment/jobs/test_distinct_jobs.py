"""Equal jobs of a sweep are refused, and jobs share the equal sections of their configurations."""

from __future__ import annotations

from typing import Any

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.jobs.distinct_jobs import DistinctJobs, labels_of


def said(jobs: list[list[str]], configs: list[dict[str, Any]]) -> str:
    distinct = DistinctJobs()
    for number, config in enumerate(configs):
        assert distinct.add(number, config) == config
    with pytest.raises(SettingError) as caught:
        distinct.refuse_equal(jobs)
    return str(caught.value)


def test_different_jobs_share_equal_sections() -> None:
    distinct = DistinctJobs()
    first, second, third = (
        distinct.add(number, {"seed": number, "model": {"hidden": [4]}, "optimizer": {"lr": lr}})
        for number, lr in enumerate((1, 1.0, True))
    )
    assert first["model"] is second["model"] is third["model"]
    assert [repr(job["optimizer"]["lr"]) for job in (first, second, third)] == ["1", "1.0", "True"]
    distinct.refuse_equal([["seed=0"], ["seed=1"], ["seed=2"]])


def test_equal_jobs_are_named_with_the_overrides_in_which_they_differ() -> None:
    jobs = [["a=1", "lr=1e-3", "seed=0"], ["a=1", "lr=0.001", "seed=0"]]
    assert said(jobs, [{"lr": 0.001}, {"lr": 0.001}]) == (
        "jobs 0 and 1 have the same configuration: lr=1e-3 and lr=0.001; give each value once."
    )
    assert said([[], ["lr=1"]], [{"lr": 1}] * 2).endswith(
        "configuration: as configured and lr=1; give each value once."
    )


@pytest.mark.parametrize(
    ("values", "seeds", "words"),
    [
        (["1", "1", "2"], ["0", "1"], "lr=1"),
        (["1", "1"], ["0"], "a=1 lr=1 seed=0"),
        (["1", "1"], ["0", "1"], "a=1 lr=1"),
    ],
)
def test_a_value_that_is_listed_twice_is_named(values: list[str], seeds: list[str], words: str) -> None:
    jobs = [["hydra.sweep.dir=out", "a=1", f"lr={value}", f"seed={seed}"] for value in values for seed in seeds]
    configs = [{"words": job} for job in jobs]
    start = f"jobs 0 and {len(seeds)} have the same configuration: "
    assert said(jobs, configs) == f"{start}{words}; give each value once."


def test_labels_leave_out_what_all_jobs_have() -> None:
    assert labels_of([["hydra.verbose=true", "a=1", "b=2"], ["hydra.verbose=true", "a=1", "b=3"]]) == ["b=2", "b=3"]
    assert labels_of([["hydra.verbose=true", "a=1"]]) == ["a=1"]
    assert labels_of([["hydra.verbose=true"]]) == ["as configured"]
