"""In a run of one process, sums, gathers and shares return the values of this process."""

from __future__ import annotations

import pytest
import torch

from loopwright.device import Alone


def test_one_process_is_rank_0_of_1() -> None:
    ranks = Alone()
    assert (ranks.rank, ranks.world_size, ranks.local_rank) == (0, 1, 0)


def test_a_sum_over_one_process_returns_its_values() -> None:
    values = torch.tensor([1.5, -2.0])
    Alone().add(values).wait()
    assert values.tolist() == [1.5, -2.0]


def test_bytes_are_returned_unchanged() -> None:
    ranks = Alone()
    assert ranks.gather_bytes(b"abc") == [b"abc"]
    assert ranks.share_bytes(b"abc") == b"abc"
    ranks.leave()


def test_process_0_must_give_data_to_share() -> None:
    with pytest.raises(ValueError, match="expected bytes, because this is process 0"):
        Alone().share_bytes(None)
