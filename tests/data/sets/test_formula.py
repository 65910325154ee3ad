"""Samples computed from their index: they do not depend on the batch, and have the expected distribution."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright.data import Loader, Splits, as_source, synthetic, synthetic_regression, synthetic_tokens
from loopwright.data.sets import formula as formulas
from loopwright.data.sets.formula import FormulaData, fractions, normal_numbers, whole_numbers, words

KINDS: dict[str, Any] = {"images": synthetic, "regression": synthetic_regression, "tokens": synthetic_tokens}


def numbers(num: int, num_numbers: int = 1) -> torch.Tensor:
    return normal_numbers(0, "test", torch.arange(num), num_numbers)


@pytest.mark.parametrize("kind", KINDS)
@given(indices=st.lists(st.integers(0, 10**9 - 1), min_size=1, max_size=9))
@settings(max_examples=20, deadline=None)
def test_a_sample_is_bitwise_equal_alone_and_in_any_batch(kind: str, indices: list[int]) -> None:
    data = KINDS[kind](num_train=10**9, num_val=1).train.dataset
    assert isinstance(data, FormulaData)
    batch = data.__getitems__(indices).batch
    for place, index in enumerate(indices):
        for name, value in data[index].items():
            assert torch.equal(batch[name][place], value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_held_in_memory_equals_the_computed_set(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held: Splits = KINDS[kind](num_train=70, num_val=5)
    monkeypatch.setattr(formulas, "_MAX_HELD_VALUES", 0)
    computed: Splits = KINDS[kind](num_train=70, num_val=5)
    assert type(held.train.dataset) is not type(computed.train.dataset) is FormulaData
    for one, other in zip([held.train, held.val], [computed.train, computed.val], strict=True):
        rows = list(range(len(one.dataset)))
        first, second = one.dataset.__getitems__(rows).batch, other.dataset.__getitems__(rows).batch
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_set_of_a_billion_samples_is_read_from_any_position() -> None:
    splits = synthetic_tokens(num_train=10**9, num_val=10**9, batch_size=8)
    assert len(splits.train) == 125_000_000
    source = as_source(splits.val, seed=0)
    batch = next(source.read(0, 124_999_999))
    last = splits.val.dataset[-1]["tokens"]
    assert torch.equal(batch["tokens"][-1], last)
    with pytest.raises(IndexError, match="outside a set of 1000000000 samples"):
        splits.val.dataset[10**9]


def test_validation_indices_follow_training_indices() -> None:
    splits = synthetic(num_train=10, num_val=10)
    longer = synthetic(num_train=20, num_val=1)
    assert torch.equal(splits.val.dataset[0]["image"], longer.train.dataset[10]["image"])


def test_computed_samples_are_read_in_workers() -> None:
    data = FormulaData(6, _square)
    assert [int(row["x"][0]) for row in Loader(pickle.loads(pickle.dumps(data)), num_workers=1)] == [
        0,
        1,
        4,
        9,
        16,
        25,
    ]


def _square(indices: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"x": indices * indices}


def test_normal_numbers_are_normally_distributed_and_uncorrelated() -> None:
    drawn = numbers(100_000, 4).double()
    assert drawn.mean(dim=0).abs().max() < 0.02
    assert (drawn.var(dim=0) - 1).abs().max() < 0.02
    assert drawn.pow(4).mean().item() == pytest.approx(3, abs=0.05)
    assert (torch.corrcoef(drawn.T) - torch.eye(4)).abs().max() < 0.02
    assert torch.corrcoef(torch.stack([drawn[:-1, 0], drawn[1:, 0]]))[0, 1].abs() < 0.02
    assert (drawn * 4096 == (drawn * 4096).round()).all()


@given(st.integers(-(2**63), 2**63), st.integers(1, 2**31 - 1))
def test_whole_numbers_and_fractions_are_in_their_range(seed: int, num_options: int) -> None:
    drawn = words(seed, "range", torch.arange(50), 2)
    whole, parts = whole_numbers(drawn, num_options), fractions(drawn)
    assert whole.min() >= 0 and whole.max() < num_options
    assert parts.min() >= 0 and parts.max() < 1


def test_whole_numbers_are_equally_likely() -> None:
    counts = whole_numbers(words(3, "even", torch.arange(30_000), 1)[:, 0], 3).bincount()
    assert (counts - 10_000).abs().max() < 400
    assert abs(fractions(words(3, "even", torch.arange(30_000), 1)).mean() - 0.5) < 0.01
