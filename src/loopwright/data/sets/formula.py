"""Numbers by a formula of their index: the same whenever, and in whatever order, they are asked for.

No generator is stepped, so sample 999,999,999 costs what sample 0 costs. The words are splitmix64 (Steele et al. 2014)
of a counter. Shape suffixes: B samples, W words, N numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from loopwright.data.reading.rows import Rows
from loopwright.data.sets.tensors import TensorData
from loopwright.seeding import derive

# A set with no more values than this is computed once and held (64 MB of float32); a larger one is computed as read.
_MAX_HELD_VALUES = 2**24
_NUM_AT_ONCE = 4096

_QUANTILE_BITS = 16
_QUANTILE_STEP = 2.0**-12
_NUM_PER_WORD = 64 // _QUANTILE_BITS

Formula = Callable[[Tensor], Mapping[str, Tensor]]


class FormulaData:
    """A data set of any length whose samples are computed when they are read.

    Args:
        num_samples: samples in the set.
        formula: makes a batch of the samples with the given indices, int64; draws no random numbers.
        first: index that the formula is given for sample 0.
    """

    is_random: ClassVar[bool] = False

    def __init__(self, num_samples: int, formula: Formula, first: int = 0) -> None:
        self._num_samples = num_samples
        self._formula = formula
        self._first = first

    def __len__(self) -> int:
        """Samples in the set."""
        return self._num_samples

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One sample.

        Raises:
            IndexError: for an index outside the set.
        """
        if not -self._num_samples <= index < self._num_samples:
            raise IndexError(f"index {index} is outside a set of {self._num_samples} samples")
        return {name: tensor[0] for name, tensor in self.__getitems__([index % self._num_samples]).batch.items()}

    def __getitems__(self, indices: list[int]) -> Rows:
        """The samples at ``indices`` as one batch."""
        return Rows(self._formula(torch.tensor(indices) + self._first))


def make_set(num_samples: int, formula: Formula, first: int, num_values: int) -> TensorData | FormulaData:
    """The samples of a formula, held in memory where they are few; the values are the same either way.

    Args:
        num_samples: samples in the set.
        formula: as for `FormulaData`.
        first: index that the formula is given for sample 0.
        num_values: numbers in one sample.
    """
    if num_samples * num_values > _MAX_HELD_VALUES:
        return FormulaData(num_samples, formula, first)
    parts = [formula(indices) for indices in _index_parts(first, num_samples)]
    return TensorData({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _index_parts(first: int, num_samples: int) -> Iterator[Tensor]:
    stop = first + num_samples
    return (torch.arange(start, min(stop, start + _NUM_AT_ONCE)) for start in range(first, stop, _NUM_AT_ONCE))


def words(seed: int, purpose: str, indices_B: Tensor, num_words: int) -> Tensor:
    """Random 64-bit words, int64, samples x num_words, keyed by (seed, purpose, index)."""
    counter_BW = indices_B[:, None] * num_words + torch.arange(1, num_words + 1)
    mixed_BW = counter_BW * _signed(0x9E3779B97F4A7C15) + _signed(derive(seed, purpose))
    mixed_BW = (mixed_BW ^ _shift(mixed_BW, 30)) * _signed(0xBF58476D1CE4E5B9)
    mixed_BW = (mixed_BW ^ _shift(mixed_BW, 27)) * _signed(0x94D049BB133111EB)
    return mixed_BW ^ _shift(mixed_BW, 31)


def whole_numbers(words_BW: Tensor, num_options: int) -> Tensor:
    """Whole numbers in [0, num_options), int64, all equally likely up to num_options / 2**31."""
    return (_shift(words_BW, 33) * num_options) >> 31


def fractions(words_BW: Tensor) -> Tensor:
    """Numbers in [0, 1), float32, multiples of 2**-24."""
    return _shift(words_BW, 40).float() * 2.0**-24


def normal_numbers(seed: int, purpose: str, indices_B: Tensor, num_numbers: int) -> Tensor:
    """Normally distributed numbers, float32, samples x num_numbers: one of 65,536 quantiles each, a multiple of 2**-12.

    They are looked up rather than computed: a logarithm may round differently in a long batch and in a short one.
    """
    words_BW = words(seed, purpose, indices_B, -(-num_numbers // _NUM_PER_WORD))
    shifts = torch.arange(0, 64, _QUANTILE_BITS)
    places_BN = ((words_BW[..., None] >> shifts) & (2**_QUANTILE_BITS - 1)).flatten(1)[:, :num_numbers]
    return _quantiles()[places_BN]


@functools.cache
def _quantiles() -> Tensor:
    num = 2**_QUANTILE_BITS
    exact = torch.special.ndtri((torch.arange(num, dtype=torch.float64) + 0.5) / num)
    rounded: Tensor = (exact / _QUANTILE_STEP).round() * _QUANTILE_STEP
    return rounded.float()


def _shift(words_BW: Tensor, num_bits: int) -> Tensor:
    """A shift to the right that brings in zeros; torch's own brings in copies of the sign."""
    return (words_BW >> num_bits) & ((1 << (64 - num_bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
