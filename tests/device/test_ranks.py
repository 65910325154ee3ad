"""A run in one process: sums, gathers and shares give what this process has."""

from __future__ import annotations

import pytest
import torch

from loopwright.device import Alone


def test_one_process_is_rank_0_of_1() -> None:
    ranks = Alone()
    assert (ranks.rank, ranks.world_size, ranks.local_rank) == (0, 1, 0)


def test_a_sum_over_one_process_is_the_values_themselves() -> None:
    values = torch.tensor([1.5, -2.0])
    Alone().add(values).wait()
    assert values.tolist() == [1.5, -2.0]


def test_bytes_come_back_as_they_were_given() -> None:
    ranks = Alone()
    assert ranks.gather_bytes(b"abc") == [b"abc"]
    assert ranks.share_bytes(b"abc") == b"abc"
    ranks.leave()


def test_process_0_has_data_to_share() -> None:
    with pytest.raises(ValueError, match="expected the data of process 0"):
        Alone().share_bytes(None)
