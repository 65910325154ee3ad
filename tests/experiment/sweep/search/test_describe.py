"""The plan of a search: its space, and the proposals that do not depend on results."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from command import Answer

SEARCH = ("sweep.search=random", "loop.max_steps=4", "data=synthetic", "data.num_train=24", "data.num_val=8")


@pytest.mark.slow
def test_a_random_search_shows_all_its_proposals(cli: Callable[..., Answer]) -> None:
    space = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "data.batch_size=int(interval(4,8))", "seed=0,1")
    answer = cli("plan", "-m", *SEARCH, *space, "sweep.num_proposals=4")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[:8] == [
        "Search: random, 4 proposals × 2 seeds",
        "  optimizer.lr     from 0.0001 to 0.1 (logarithmic)",
        "  data.batch_size  from 4 to 8 (whole numbers)",
        "Proposals",
        "    0  optimizer.lr=0.005677 data.batch_size=8",
        "    1  optimizer.lr=0.00037 data.batch_size=5",
        "    2  optimizer.lr=0.002665 data.batch_size=4",
        "    3  optimizer.lr=0.0009246 data.batch_size=7",
    ]
    assert "A job with the first values\nPlan: train 4 steps" in answer.out


def test_a_long_search_shows_its_first_proposals(cli: Callable[..., Answer]) -> None:
    answer = cli("plan", "-m", *SEARCH, "optimizer.lr=interval(0,1)", "seed=7", "sweep.num_proposals=30")
    assert answer.code == 0
    assert "First proposals\n" in answer.out
    assert "  The other 10 are drawn in the same way.\n" in answer.out


def test_a_small_space_ends_the_search(cli: Callable[..., Answer]) -> None:
    answer = cli("plan", "-m", *SEARCH, "optimizer.lr=0.1,0.2,0.3", "sweep.num_proposals=30")
    assert answer.code == 0
    assert "  The space has no further combinations of values.\n" in answer.out


@pytest.mark.slow
def test_a_wrong_setting_of_the_jobs_is_refused(cli: Callable[..., Answer]) -> None:
    answer = cli("plan", "-m", *SEARCH, "optimizer.lr=interval(-1,1)", "sweep.num_proposals=3")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "optimizer: Invalid learning rate: -1.0\n"
