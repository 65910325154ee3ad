"""`comparable` removes what cannot change results, and what earlier versions did not record."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loopwright.records import comparable

NEW: dict[str, Any] = {
    "loopwright": "0.1.0",
    "python": "3.11.2",
    "packages": {"numpy": "2.0"},
    "hardware": {"cpu": "Xeon, family 6, model 85, stepping 7", "cpu_capability": "AVX2"},
    "variables": {"MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "2", "RANK": "1", "SLURM_JOB_ID": "7"},
    "git": {"commit": None},
    "source": {"loopwright": "00"},
}
OLD: dict[str, Any] = {
    "python": "3.11.2",
    "packages": {"numpy": "2.0"},
    "hardware": {"cpu": "Xeon"},
    "variables": {"OMP_NUM_THREADS": "2"},
    "git": {"commit": None},
}
ENVIRONMENTS = st.sampled_from([NEW, OLD, {**NEW, "python": "3.12.0"}, {**OLD, "hardware": 3, "variables": []}, {}])


def test_variables_of_a_job_are_removed_and_others_are_kept() -> None:
    (found,) = comparable([NEW])
    assert found["variables"] == {"MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "2"}
    assert {name: found[name] for name in found if name != "variables"} == {
        name: NEW[name] for name in NEW if name != "variables"
    }


def test_values_that_an_earlier_version_did_not_record_are_removed_from_all() -> None:
    old, new, other = comparable([OLD, NEW, {**NEW, "python": "3.12.0"}])
    assert old == new
    assert other == {**new, "python": "3.12.0"}


@given(environments=st.lists(ENVIRONMENTS, max_size=4))
def test_the_order_does_not_matter_and_nothing_is_changed_in_place(environments: list[dict[str, Any]]) -> None:
    before = repr(environments)
    found = comparable(environments)
    assert repr(environments) == before
    assert comparable(environments[::-1]) == found[::-1]
    assert comparable(found) == found
