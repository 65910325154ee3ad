"""Random streams: their state, their branches, and how the state is saved and restored."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from loopwright.seeding import RandomStreams, derive, draw_seed, sample_seed


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(1).item()


def test_streams_continue_where_they_were_left() -> None:
    streams, same = RandomStreams(4), RandomStreams(4)
    with streams.active():
        straight = [draw() for _ in range(4)]
    cut = []
    for _ in range(4):
        with same.active():
            cut.append(draw())
        draw()
    assert cut == straight


def test_nested_use_does_nothing() -> None:
    streams, same = RandomStreams(4), RandomStreams(4)
    with streams.active():
        first = draw()
        with streams.active():
            second = draw()
    with same.active():
        assert [draw(), draw()] == [first, second]


def test_a_branch_depends_on_its_key_and_restores_the_streams() -> None:
    streams = RandomStreams(4)
    with streams.active():
        with streams.branch("validate", 100, "val"):
            inside = draw()
        after = draw()
    with RandomStreams(4).active():
        assert draw() == after
    with streams.branch("validate", 100, "val"):
        assert draw() == inside
    with streams.branch("validate", 101, "val"):
        assert draw() != inside


def test_the_callers_streams_survive_an_exception() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(ZeroDivisionError), RandomStreams(4).active():
        random.seed(draw()[0] // 0)
    assert draw() == expected


@pytest.mark.parametrize("is_active", [True, False])
def test_a_state_is_saved_and_restored(is_active: bool) -> None:
    streams, other = RandomStreams(4), RandomStreams(9)
    with streams.active():
        draw()
        state = streams.state_dict() if is_active else None
        expected = draw() if is_active else None
    if not is_active:
        state = streams.state_dict()
        with streams.active():
            expected = draw()
    assert state is not None
    other.load_state_dict(state)
    assert other.seed == 4
    with other.active():
        assert draw() == expected


def test_derived_seeds_differ_by_key() -> None:
    seeds = {derive(seed, "order", index) for seed in range(20) for index in range(20)}
    assert len(seeds) == 400 and derive(1, "a") != derive(1, "b")


def test_sample_seeds_differ_by_seed_pass_and_index() -> None:
    seeds = {
        sample_seed(seed, pass_index, index) for seed in range(8) for pass_index in range(8) for index in range(50)
    }
    assert len(seeds) == 8 * 8 * 50 and all(0 <= seed < 1 << 64 for seed in seeds)


def test_a_drawn_seed_is_valid() -> None:
    assert 0 <= draw_seed() < 1 << 32
