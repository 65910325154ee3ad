"""`Permutation`: a bijection that depends on its seed, has consistent slices, and passes tests of uniformity."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from loopwright.data.reading import permutation
from loopwright.data.reading.permutation import Permutation

SEEDS = st.integers(0, 2**64 - 1)
# The chi-square tests use fixed seeds. Truly random permutations would fall below this once in 10,000 tests.
LEAST_P = 1e-4


@given(st.integers(1, 3000), SEEDS)
@settings(max_examples=100, deadline=None)
def test_a_permutation_is_a_bijection(num: int, seed: int) -> None:
    order = Permutation(num, seed)
    assert sorted(order[:].tolist()) == list(range(num)) and len(order) == num


def test_small_sizes_and_sizes_around_powers_of_two_are_bijections() -> None:
    for num in (*range(1, 200), 4095, 4096, 4097, 65_537, 10**6):
        assert np.array_equal(np.sort(Permutation(num, 5)[:]), np.arange(num))


@given(st.integers(2**20, 2**62), SEEDS, st.data())
@settings(max_examples=100, deadline=None)
def test_numbers_of_a_large_permutation_are_distinct_and_in_range(num: int, seed: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, num - 3000))
    read = Permutation(num, seed)[start : start + 3000]
    assert len(np.unique(read)) == 3000 and read.min() >= 0 and read.max() < num


@given(st.integers(1, 3000), SEEDS, st.slices(3000))
@settings(max_examples=100, deadline=None)
def test_a_slice_equals_the_slice_of_the_whole_permutation(num: int, seed: int, places: slice) -> None:
    assert Permutation(num, seed)[places].tolist() == Permutation(num, seed)[:].tolist()[places]


@given(st.integers(1, 2**62), SEEDS, st.data())
@settings(max_examples=100, deadline=None)
def test_two_adjacent_slices_equal_one_longer_slice(num: int, seed: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, num))
    middle, stop = sorted(start + data.draw(st.integers(0, 500)) for _ in range(2))
    order = Permutation(num, seed)
    parts = [order[start:middle], order[middle:stop]]
    assert np.concatenate(parts).tolist() == Permutation(num, seed)[start:stop].tolist()


@given(st.integers(100, 2**62), SEEDS, SEEDS)
@settings(max_examples=100, deadline=None)
def test_another_seed_gives_another_order(num: int, seed: int, other: int) -> None:
    is_equal = np.array_equal(Permutation(num, seed)[:100], Permutation(num, other)[:100])
    assert is_equal == (seed == other)


def test_orders_have_not_changed_between_versions() -> None:
    """Compare with literal numbers: if they changed, runs could not be resumed from existing checkpoints."""
    assert Permutation(10, 0)[:].tolist() == [6, 5, 0, 8, 7, 1, 9, 4, 2, 3]
    assert Permutation(10**9, 0)[:3].tolist() == [667138421, 513017443, 749175532]
    assert Permutation(10**9, 2**63)[10**8 : 10**8 + 3].tolist() == [697144625, 433859116, 477260171]


# Tests of uniformity. Each function returns the probability that truly random permutations are at least as uneven as
# the tested ones.


def p_of(chi_square: float, freedom: int) -> float:
    """Return the probability that a variable with ``freedom`` degrees of freedom is at least ``chi_square``."""
    halves = torch.tensor([freedom / 2, chi_square / 2], dtype=torch.float64)
    return torch.special.gammaincc(*halves).item()


def p_of_counts(counts: NDArray[np.int64], expected: NDArray[np.float64] | float) -> float:
    return p_of(float(((counts - expected) ** 2 / expected).sum()), counts.size - 1)


def orders(num: int, num_seeds: int) -> Iterable[NDArray[np.int64]]:
    return (Permutation(num, seed)[:] for seed in range(num_seeds))


def p_of_positions(num: int, num_seeds: int = 3000) -> float:
    """Test that every number occurs equally often at every position.

    The rows and the columns of the table sum to ``num_seeds``. For random permutations, its deviations therefore have
    (num - 1)**2 degrees of freedom, each with the variance num_seeds / (num - 1).
    """
    counts = np.zeros((num, num), dtype=np.int64)
    for order in orders(num, num_seeds):
        counts[np.arange(num), order] += 1
    deviation = float(((counts - num_seeds / num) ** 2).sum())
    return p_of(deviation * (num - 1) / num_seeds, (num - 1) ** 2)


def p_of_pairs(num: int, num_seeds: int = 3000) -> float:
    """Test that every pair of numbers occurs equally often at the first two positions."""
    counts = np.zeros((num, num), dtype=np.int64)
    for order in orders(num, num_seeds):
        counts[order[0], order[1]] += 1
    return p_of_counts(counts[~np.eye(num, dtype=bool)], num_seeds / (num * (num - 1)))


def p_of_differences(num: int, lag: int, num_classes: int, seeds: Iterable[int]) -> float:
    """Test that numbers at positions ``lag`` apart differ equally often by 1, ..., num - 1 modulo num."""
    class_of = np.arange(num - 1) * num_classes // (num - 1)
    counts, num_counted = np.zeros(num_classes, dtype=np.int64), 0
    for seed in seeds:
        order = Permutation(num, seed)[:]
        change = (np.roll(order, -lag) - order) % num
        counts += np.bincount(class_of[change - 1], minlength=num_classes)
        num_counted += num
    return p_of_counts(counts, np.bincount(class_of) * num_counted / (num - 1))


def p_of_classes(num: int, seed: int, num_classes: int = 32) -> float:
    """Test that each section of a long order contains each range of numbers equally often."""
    class_of = np.arange(num) * num_classes // num
    table = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(table, (class_of, class_of[Permutation(num, seed)[:]]), 1)
    shares = np.bincount(class_of) / num
    expected = num * np.outer(shares, shares)
    chi_square = float(((table - expected) ** 2 / expected).sum()) * (num - 1) / num
    return p_of(chi_square, (num_classes - 1) ** 2)


@pytest.mark.parametrize("num", [10, *[pytest.param(num, marks=pytest.mark.slow) for num in (13, 16, 23, 33, 64)]])
def test_small_orders_are_uniform(num: int) -> None:
    assert p_of_positions(num) > LEAST_P
    if num < 30:
        assert p_of_pairs(num) > LEAST_P
    for lag in (1, 2, 3):
        assert p_of_differences(num, lag, num - 1, range(1000)) > LEAST_P


@pytest.mark.parametrize("num", [10_007, 65_536, 65_537])
def test_longer_orders_are_uniform(num: int) -> None:
    for seed in range(3):
        assert p_of_classes(num, seed) > LEAST_P
        for lag in (1, 2, 7, 64):
            assert p_of_differences(num, lag, 256, [seed]) > LEAST_P


def test_a_permutation_of_a_billion_numbers_is_uniform() -> None:
    num, num_read = 10**9, 100_000
    for start in (0, 123_456_789, num - num_read):
        read = Permutation(num, 3)[start : start + num_read]
        for classes in (read * 256 // num, read % 256, (np.diff(read) % num) * 256 // num):
            counts = np.bincount(classes, minlength=256)
            assert p_of_counts(counts, counts.sum() / 256) > LEAST_P


def test_orders_of_adjacent_seeds_are_independent() -> None:
    """The numbers at a position differ equally often by 0, ..., num - 1 modulo num."""
    num = 65_537
    for seed, other in itertools.pairwise(range(4)):
        change = (Permutation(num, seed)[:] - Permutation(num, other)[:]) % num
        counts = np.bincount(change * 256 // num, minlength=256)
        sizes = np.bincount(np.arange(num) * 256 // num, minlength=256)
        assert p_of_counts(counts, sizes.astype(float)) > LEAST_P


def test_the_uniformity_tests_detect_too_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutation, "_NUM_ROUNDS", 4)
    assert p_of_positions(10) < LEAST_P
    assert p_of_pairs(10) < LEAST_P
    assert p_of_differences(64, 1, 63, range(1000)) < LEAST_P
    monkeypatch.setattr(permutation, "_NUM_ROUNDS", 2)
    assert p_of_classes(10_007, 0) < LEAST_P
    assert p_of_differences(10_007, 1, 256, [0]) < LEAST_P
