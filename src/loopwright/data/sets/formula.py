"""`FormulaData`, a data set whose samples are computed from their indices, and functions for its random numbers.

A sample does not depend on the order in which samples are read. Sample 999,999,999 is computed as fast as sample 0,
because no generator is advanced. All random numbers are computed from random 64-bit words. A word is the nth output of
the generator splitmix64 (Steele et al. 2014), which can be computed directly from n. Shape suffixes: B samples, W
words, N numbers.
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

# A data set of at most this many values is computed once and kept in memory (64 MB of float32). The samples of a larger
# data set are computed when they are read.
_MAX_HELD_VALUES = 2**24
_NUM_AT_ONCE = 4096

_QUANTILE_BITS = 16
_QUANTILE_STEP = 2.0**-12
_NUM_PER_WORD = 64 // _QUANTILE_BITS

Formula = Callable[[Tensor], Mapping[str, Tensor]]


class FormulaData:
    """A data set of any length whose samples are computed when they are read.

    Args:
        num_samples: number of samples in the set.
        formula: function that takes sample indices, an int64 tensor, and returns a batch of these samples. The function
            must not draw random numbers from a generator.
        first: index that ``formula`` gets for sample 0.
    """

    is_random: ClassVar[bool] = False

    def __init__(self, num_samples: int, formula: Formula, first: int = 0) -> None:
        self._num_samples = num_samples
        self._formula = formula
        self._first = first

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._num_samples

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one sample.

        Raises:
            IndexError: for an index outside the set.
        """
        if not -self._num_samples <= index < self._num_samples:
            raise IndexError(f"index {index} is outside a set of {self._num_samples} samples")
        return {name: tensor[0] for name, tensor in self.__getitems__([index % self._num_samples]).batch.items()}

    def __getitems__(self, indices: list[int]) -> Rows:
        """Return the samples at ``indices`` as one batch."""
        return Rows(self._formula(torch.tensor(indices) + self._first))


def make_set(num_samples: int, formula: Formula, first: int, num_values: int) -> TensorData | FormulaData:
    """Return the samples of a formula as a data set.

    The samples of a small data set are computed now and kept in memory. The samples of a large data set are computed
    when they are read. The values are equal in both cases.

    Args:
        num_samples: number of samples in the set.
        formula: function that returns a batch for sample indices, as for `FormulaData`.
        first: index that ``formula`` gets for sample 0.
        num_values: number of values in one sample.
    """
    if num_samples * num_values > _MAX_HELD_VALUES:
        return FormulaData(num_samples, formula, first)
    parts = [formula(indices) for indices in _index_parts(first, num_samples)]
    return TensorData({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _index_parts(first: int, num_samples: int) -> Iterator[Tensor]:
    stop = first + num_samples
    return (torch.arange(start, min(stop, start + _NUM_AT_ONCE)) for start in range(first, stop, _NUM_AT_ONCE))


def words(seed: int, purpose: str, indices_B: Tensor, num_words: int) -> Tensor:
    """Return random 64-bit words, int64, of shape (samples, num_words), determined by (seed, purpose, index).

    ``purpose`` names the quantity that the words are used for, such as "label". Words of two purposes are unrelated.
    """
    counter_BW = indices_B[:, None] * num_words + torch.arange(1, num_words + 1)
    mixed_BW = counter_BW * _signed(0x9E3779B97F4A7C15) + _signed(derive(seed, purpose))
    mixed_BW = (mixed_BW ^ _shift(mixed_BW, 30)) * _signed(0xBF58476D1CE4E5B9)
    mixed_BW = (mixed_BW ^ _shift(mixed_BW, 27)) * _signed(0x94D049BB133111EB)
    return mixed_BW ^ _shift(mixed_BW, 31)


def whole_numbers(words_BW: Tensor, num_options: int) -> Tensor:
    """Convert random words to integers in [0, num_options), int64.

    All integers are equally likely, up to a relative error of num_options / 2**31 in their probabilities.
    """
    return (_shift(words_BW, 33) * num_options) >> 31


def fractions(words_BW: Tensor) -> Tensor:
    """Convert random words to multiples of 2**-24 in [0, 1), float32."""
    return _shift(words_BW, 40).float() * 2.0**-24


def normal_numbers(seed: int, purpose: str, indices_B: Tensor, num_numbers: int) -> Tensor:
    """Return normally distributed numbers, float32, of shape (samples, num_numbers).

    Each number is one of 65,536 quantiles of the normal distribution, rounded to a multiple of 2**-12. The quantiles
    come from a table. Calling `torch.special.ndtri` for each batch would give numbers that depend on the batch size:
    ndtri uses a logarithm, and torch may round a logarithm differently in a long tensor.
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
    """Shift words to the right and fill with zeros. torch's operator fills with copies of the sign bit."""
    return (words_BW >> num_bits) & ((1 << (64 - num_bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
