"""Draws from the host's random streams are detected and undone."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright.data.reading.draw_watch import DrawWatch

DRAWS: dict[str, Callable[[], Any]] = {
    "python, one word": lambda: random.getrandbits(32),
    "python, two words": random.random,
    "python, a block of words": lambda: random.getrandbits(32 * 624),
    "python, normal": lambda: random.gauss(0, 1),
    "numpy": np.random.rand,
    "torch": lambda: torch.rand(()).item(),
    "torch, normal": lambda: torch.randn(()).item(),
}
# NumPy's second normal number is forgotten in every block: it is drawn in blocks only
IN_BLOCKS: dict[str, Callable[[], Any]] = DRAWS | {
    "numpy, normal": np.random.randn,
    "python, seeded": lambda: random.seed(1),
    "numpy, seeded": lambda: np.random.seed(1),
    "torch, seeded": lambda: torch.manual_seed(1),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    seed()


def seed() -> None:
    random.seed(3), np.random.seed(3), torch.manual_seed(3)


names = st.lists(st.sampled_from(sorted(DRAWS)), max_size=3)
names_in_block = st.lists(st.sampled_from(sorted(IN_BLOCKS)), max_size=3)


@given(st.lists(st.tuples(names, names_in_block), max_size=8))
@settings(max_examples=150)
def test_any_draws_in_a_block_are_detected_and_no_other_draw_changes(turns: list[tuple[list[str], list[str]]]) -> None:
    seed()
    expected = [DRAWS[name]() for outside, _ in turns for name in outside]
    seed()
    watch, drawn = DrawWatch(), []
    for outside, inside in turns:
        drawn += [DRAWS[name]() for name in outside]
        with watch:
            for name in inside:
                IN_BLOCKS[name]()
        assert watch.has_drawn == bool(inside)
    assert drawn == expected


@pytest.mark.parametrize("num_words", [1, 2, 3, 5, 623, 624, 625])
def test_python_numbers_between_blocks_are_undone_at_every_position(num_words: int) -> None:
    """A probe of the stream may fall on the border of two blocks of 624 words."""
    num_turns = 1300 if num_words < 10 else 20
    expected = [random.getrandbits(32) for _ in range(num_words * num_turns)]
    seed()
    watch, drawn = DrawWatch(), []
    for _ in range(num_turns):
        with watch:
            pass
        assert not watch.has_drawn
        drawn += [random.getrandbits(32) for _ in range(num_words)]
    assert drawn == expected


def test_another_state_with_the_same_next_word_is_not_taken_for_the_same_state() -> None:
    watch = DrawWatch()
    with watch:
        pass
    version, (*words, position), spare_normal = random.getstate()
    assert position == 624  # the next word comes from a new block, of which each word depends on that 397 places ahead
    words[398] ^= 1
    random.setstate((version, (*words, position), spare_normal))
    expected = [random.getrandbits(32) for _ in range(3)]
    random.setstate((version, (*words, position), spare_normal))
    with watch:
        pass
    assert not watch.has_drawn
    assert [random.getrandbits(32) for _ in range(3)] == expected


def test_a_kept_normal_number_is_neither_taken_nor_given_back_twice() -> None:
    watch = DrawWatch()
    expected = [random.gauss(0, 1) for _ in range(4)]
    seed()
    drawn = [random.gauss(0, 1)]
    with watch:
        random.gauss(0, 1)  # takes the second number of the pair, and draws nothing
    assert watch.has_drawn
    drawn += [random.gauss(0, 1)]
    with watch:
        pass
    assert not watch.has_drawn
    drawn += [random.gauss(0, 1), random.gauss(0, 1)]
    assert drawn == expected


def test_a_block_that_raises_leaves_the_streams_as_they_were() -> None:
    watch = DrawWatch()
    expected = [draw() for draw in DRAWS.values()]
    seed()
    with pytest.raises(ZeroDivisionError), watch:
        random.random(), np.random.rand(), torch.rand(1), 1 // 0
    assert [draw() for draw in DRAWS.values()] == expected


@pytest.mark.parametrize("name", ["a pickled copy", "a watch of another process"])
def test_a_watch_sent_to_a_worker_detects_the_same(name: str) -> None:
    watch = DrawWatch()
    with watch:
        pass
    watch = pickle.loads(pickle.dumps(watch)) if name == "a pickled copy" else copy.deepcopy(watch)
    random.seed(8), np.random.seed(8), torch.manual_seed(8)  # as torch does when a worker starts
    for is_drawing in (False, False, True, False):
        with watch:
            random.random() if is_drawing else None
        assert watch.has_drawn == is_drawing


def test_a_watch_inside_another_is_not_seen_by_it() -> None:
    outer, inner = DrawWatch(), DrawWatch()
    for _ in range(3):
        with outer, inner:
            random.random()
        assert inner.has_drawn and not outer.has_drawn


@pytest.mark.parametrize("is_first_inside", [True, False])
def test_a_block_may_be_in_inference_mode(is_first_inside: bool) -> None:
    watch = DrawWatch()
    for is_inside in (is_first_inside, not is_first_inside):
        with torch.inference_mode(is_inside), watch:
            pass
        assert not watch.has_drawn
        with torch.inference_mode(is_inside), watch:
            torch.rand(1)
        assert watch.has_drawn
