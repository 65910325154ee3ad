"""`Permutation`: a shuffled order that is computed where it is read, and never held.

An order is a pseudo-random bijection of [0, num_samples), by methods of format-preserving encryption: a Feistel
network is a bijection for any round function (Luby and Rackoff, "How to construct pseudorandom permutations from
pseudorandom functions", 1988); with halves that need not be equally long, changed in turn, it fits any number of bits
("alternating Feistel": Lucks, "Faster Luby-Rackoff ciphers", 1996; FFX of Bellare, Rogaway and Spies, 2010). What lands
outside [0, num_samples) is permuted again until it lands inside: cycle walking (Black and Rogaway, "Ciphers with
arbitrary finite domains", 2002, section 4), in less than two turns on average, as the bits are as few as will do.

The round function is a fast mixer of 64-bit words and no cipher: an order is meant to look random, not to be a secret.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loopwright.seeding import derive

# The tests in tests/data/reading/test_permutation.py detect four rounds up to 100 numbers, six up to 16, and eight
# up to 8.
_NUM_ROUNDS = 8

# Two multiplications with a fold of the high half between them, after the finalizer of splitmix64 (Steele et al. 2014),
# whose multipliers these are.
_FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_FACTOR = np.uint64(0x94D049BB133111EB)
_HALF_WORD = np.uint64(32)

Words = NDArray[np.uint64]


class Permutation:
    """A permutation of [0, num_samples) of which any slice is computed alone, in memory for that slice.

    >>> Permutation(10, seed=0)[2:5].tolist() == Permutation(10, seed=0)[:].tolist()[2:5]
    True

    Args:
        num_samples: how many numbers are permuted, at most 2**63.
        seed: decides which permutation it is.
    """

    def __init__(self, num_samples: int, seed: int) -> None:
        num_bits = max(2, (num_samples - 1).bit_length())  # each half needs one
        self._num_samples = num_samples
        self._num_low_bits = num_bits // 2
        self._num_high_bits = num_bits - num_bits // 2
        self._keys = [np.uint64(derive(seed, index)) for index in range(_NUM_ROUNDS)]

    def __len__(self) -> int:
        """How many numbers are permuted."""
        return self._num_samples

    def __getitem__(self, places: slice) -> NDArray[np.int64]:
        """The numbers at ``places``; a call costs as much as a few thousand numbers, so ask for many."""
        start, stop, step = places.indices(self._num_samples)
        words = self._permute_words(np.arange(start, stop, step, dtype=np.uint64))
        outside = np.flatnonzero(words >= self._num_samples)
        while outside.size:
            words[outside] = self._permute_words(words[outside])
            outside = outside[words[outside] >= self._num_samples]
        return words.astype(np.int64)

    def _permute_words(self, words: Words) -> Words:
        """A bijection of all words of as many bits as the greatest number."""
        high, low = words >> np.uint64(self._num_low_bits), words & np.uint64((1 << self._num_low_bits) - 1)
        for key_high, key_low in zip(self._keys[::2], self._keys[1::2], strict=True):
            high ^= _mix(low, key_high, self._num_high_bits)
            low ^= _mix(high, key_low, self._num_low_bits)
        return high << np.uint64(self._num_low_bits) | low


def _mix(words: Words, key: np.uint64, num_bits: int) -> Words:
    """Random-looking words of ``num_bits`` bits, at least 1, that depend on every bit of ``words`` and ``key``."""
    mixed = words ^ key
    mixed *= _FIRST_FACTOR
    mixed ^= mixed >> _HALF_WORD
    mixed *= _SECOND_FACTOR
    mixed >>= np.uint64(64 - num_bits)
    return mixed
