"""The training feed: the position that it keeps, and dataloaders that are not as long as they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loopwright.data import as_source
from loopwright.engine.feed import Feed
from loopwright.errors import DataError
from loopwright.run_state import RunState


class Lengthless:
    """``num_batches`` numbers in each pass; the dataloader has no length, and counts how often it is begun."""

    def __init__(self, num_batches: int) -> None:
        self.num_batches = num_batches
        self.num_passes = 0

    def __iter__(self) -> Iterator[int]:
        self.num_passes += 1
        return iter(range(self.num_batches))


class Lying(Lengthless):
    """The same with a length, which may be wrong."""

    def __init__(self, num_batches: int, length: int) -> None:
        super().__init__(num_batches)
        self.length = length

    def __len__(self) -> int:
        return self.length


def feed(dataloader: Any, *position: int) -> tuple[Feed, RunState]:
    """A feed that begins at a pass and a micro-batch, and the state that keeps its position."""
    state = RunState()
    if position:
        state.pass_index, state.micro_batch_index = position
    return Feed(as_source(dataloader, 0), state), state


def position(state: RunState) -> tuple[int, int]:
    return state.pass_index, state.micro_batch_index


def test_the_position_moves_with_each_micro_batch_and_never_stands_at_the_end_of_a_pass() -> None:
    """Catches a run saved at the end of a pass that is resumed at the end, and not in the next pass."""
    ours, state = feed([10, 11, 12], 4, 1)
    moved = [(ours.take(), *position(state)) for _ in range(3)]
    assert moved == [(11, 4, 2), (12, 5, 0), (10, 5, 1)]


def test_a_dataloader_of_unknown_length_is_read_pass_after_pass() -> None:
    """Catches a pass that ends a run, and an end that is looked for twice."""
    data = Lengthless(2)
    ours, state = feed(data)
    assert [ours.take() for _ in range(5)] == [0, 1, 0, 1, 0]
    assert (position(state), data.num_passes) == ((2, 1), 3)


def test_looking_ahead_loses_no_batch_and_the_end_that_it_finds_is_part_of_the_position() -> None:
    """Catches a micro-batch that is dropped after `has_more`, and a resume that looks for the same end again."""
    ours, state = feed(Lengthless(2))
    assert (ours.take(), ours.has_more(), ours.has_more(), position(state)) == (0, True, True, (0, 1))
    assert (ours.take(), ours.has_more(), position(state)) == (1, False, (1, 0))
    assert ours.take() == 0


def test_where_the_length_is_known_nothing_is_read_ahead() -> None:
    """Catches a batch that is read before the step that needs it."""
    ours, _ = feed(Lying(1, 1))
    assert ours.has_more()


@pytest.mark.parametrize("dataloader", [Lengthless(6), [0, 1, 2, 3, 4, 5]])
def test_a_broken_step_is_read_again_from_its_first_micro_batch(dataloader: Any) -> None:
    """Catches a step that is begun again in its middle, also where the batch after it was looked ahead for."""
    ours, state = feed(dataloader)
    ours.take()
    state.window_start = position(state)
    assert [ours.take(), ours.take(), ours.has_more()] == [1, 2, True]
    ours.rewind()
    assert [ours.take() for _ in range(2)] == [1, 2]


def test_an_iterator_continues_where_it_is_after_a_broken_step() -> None:
    """Catches a position that says what the iterator can no longer give."""
    ours, state = feed(iter(range(6)))
    state.window_start = position(state)
    assert [ours.take(), ours.take()] == [0, 1]
    ours.rewind()
    assert (ours.take(), position(state)) == (2, (0, 3))


def test_between_fits_a_dataloader_that_is_read_forward_is_kept_and_another_is_let_go() -> None:
    """Catches batches that each fit reads again from the start, and worker processes that wait for the next fit."""
    forward, sought = Lengthless(4), [0, 1, 2, 3]
    for data in (forward, sought):
        ours, _ = feed(data)
        assert ours.take() == 0
        ours.rest()
        assert ours.take() == 1
    assert forward.num_passes == 1
    ours.rest()
    sought[2] = 20
    assert ours.take() == 20


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (5, "ended after 3 micro-batches of pass 0; its length is 5"),
        (2, "has more than 2 micro-batches in pass 0; its length is 2"),
    ],
)
def test_a_length_that_is_wrong_is_found(length: int, message: str) -> None:
    """Catches data that are dropped at the end of each pass, or a pass that is shorter than the plan."""
    ours, _ = feed(Lying(3, length))
    with pytest.raises(DataError, match=message):
        for _ in range(4):
            ours.take()


@pytest.mark.parametrize(
    ("dataloader", "message"),
    [
        (Lengthless(0), "is empty in pass 0: expected at least one micro-batch"),
        (
            iter(range(2)),
            "is empty in pass 1: .* that can be iterated over again, or train fewer steps",
        ),
    ],
)
def test_a_pass_without_data_is_an_error(dataloader: Any, message: str) -> None:
    """Catches a fit that looks for data without end."""
    ours, _ = feed(dataloader)
    with pytest.raises(DataError, match=message):
        for _ in range(3):
            ours.take()


def test_an_error_says_where_also_where_it_comes_from_looking_ahead() -> None:
    """Catches a note that is missing, or names another micro-batch, in a step of several micro-batches."""

    class Failing:
        def __iter__(self) -> Iterator[int]:
            yield 0
            raise KeyError("no such row")

    note = "Raised by the training dataloader at micro-batch 1 of pass 0."
    for read in (Feed.take, Feed.has_more):
        ours, _ = feed(Failing())
        ours.take()
        with pytest.raises(KeyError, match="no such row") as caught:
            read(ours)
        assert caught.value.__notes__ == [note]
