"""The small sizes of `bench/chaos.py` and `bench/rank_chaos.py`: disturbed runs end correctly and resume bitwise."""

from __future__ import annotations

import chaos
import pytest
import rank_chaos


@pytest.mark.slow
@pytest.mark.parametrize("experiment", chaos.FAST, ids=lambda experiment: experiment.__name__)
def test_interrupted_runs_resume_bitwise(experiment: chaos.Experiment) -> None:
    for row in chaos.run_one(experiment, chaos.FAST[experiment]):
        assert row.num_tries >= (1 if experiment is chaos.soak else 4)
        assert row.num_good == row.num_tries, str(row)


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "every"), [("signals", 23), ("faults", 19), ("kills", 39)])
def test_disturbed_processes_end_and_resume(experiment: str, every: int) -> None:
    assert rank_chaos.run_one(experiment, 0, every) == (2, 2)
