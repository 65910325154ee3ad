"""The fast tier of `bench/chaos.py`: a run that is cut goes on as if nothing had happened."""

from __future__ import annotations

import chaos
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("experiment", chaos.FAST, ids=lambda experiment: experiment.__name__)
def test_a_run_that_is_cut_goes_on(experiment: chaos.Experiment) -> None:
    for row in chaos.run_one(experiment, chaos.FAST[experiment]):
        assert row.num_tries >= (1 if experiment is chaos.soak else 4)
        assert row.num_good == row.num_tries, str(row)
