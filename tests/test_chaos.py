"""The small size of `bench/chaos.py`: interrupted runs resume bitwise."""

from __future__ import annotations

import chaos
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("experiment", chaos.FAST, ids=lambda experiment: experiment.__name__)
def test_interrupted_runs_resume_bitwise(experiment: chaos.Experiment) -> None:
    for row in chaos.run_one(experiment, chaos.FAST[experiment]):
        assert row.num_tries >= (1 if experiment is chaos.soak else 4)
        assert row.num_good == row.num_tries, str(row)
