"""`Permutation`, a random order that is computed in slices. The whole order is never in memory.

The order is a pseudo-random bijection of [0, num_samples). It is built with methods of format-preserving encryption:

- A Feistel network is a bijection for any round function (Luby and Rackoff, "How to construct pseudorandom permutations
  from pseudorandom functions", 1988).
- An alternating Feistel network changes the two halves of a word in turn. The halves may differ in length, because a
  word may have an odd number of bits (Lucks, "Faster Luby-Rackoff ciphers", 1996; FFX of Bellare, Rogaway and Spies,
  2010).
- Cycle walking applies the bijection again to a result outside [0, num_samples), until the result is inside (Black and
  Rogaway, "Ciphers with arbitrary finite domains", 2002, section 4). The words have as few bits as possible. Fewer
  than two applications are therefore needed on average.

The round function is a fast mixing function for 64-bit words, not a cipher, because an order does not need to be
secret.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loopwright.seeding import derive

# Short permutations need many rounds to look random. The tests in tests/data/reading/test_permutation.py distinguish
# the result of four rounds from a random order for up to 100 numbers, the result of six rounds for up to 16 numbers,
# and the result of eight rounds for up to 8 numbers.
_NUM_ROUNDS = 8

# `_mix` follows the finalizer of splitmix64 (Steele et al. 2014). It multiplies a word by _FIRST_FACTOR, XORs the low
# half of the word with its high half, and multiplies the word by _SECOND_FACTOR.
_FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_FACTOR = np.uint64(0x94D049BB133111EB)
_HALF_WORD = np.uint64(32)

Words = NDArray[np.uint64]


class Permutation:
    """A permutation of [0, num_samples). Each slice is computed independently, with memory for that slice only.

    >>> Permutation(10, seed=0)[2:5].tolist() == Permutation(10, seed=0)[:].tolist()[2:5]
    True

    Args:
        num_samples: length of the permutation, at most 2**63.
        seed: seed that determines the permutation.
    """

    def __init__(self, num_samples: int, seed: int) -> None:
        num_bits = max(2, (num_samples - 1).bit_length())  # Each half needs at least one bit.
        self._num_samples = num_samples
        self._num_low_bits = num_bits // 2
        self._num_high_bits = num_bits - num_bits // 2
        self._keys = [np.uint64(derive(seed, index)) for index in range(_NUM_ROUNDS)]

    def __len__(self) -> int:
        """Return the length of the permutation."""
        return self._num_samples

    def __getitem__(self, places: slice) -> NDArray[np.int64]:
        """Return the numbers in the slice ``places``. A call has an overhead of a few thousand numbers."""
        start, stop, step = places.indices(self._num_samples)
        words = self._permute_words(np.arange(start, stop, step, dtype=np.uint64))
        outside = np.flatnonzero(words >= self._num_samples)
        while outside.size:
            words[outside] = self._permute_words(words[outside])
            outside = outside[words[outside] >= self._num_samples]
        return words.astype(np.int64)

    def _permute_words(self, words: Words) -> Words:
        """Apply the Feistel network, a bijection of all words that have as many bits as the largest number."""
        high, low = words >> np.uint64(self._num_low_bits), words & np.uint64((1 << self._num_low_bits) - 1)
        for key_high, key_low in zip(self._keys[::2], self._keys[1::2], strict=True):
            high ^= _mix(low, key_high, self._num_high_bits)
            low ^= _mix(high, key_low, self._num_low_bits)
        return high << np.uint64(self._num_low_bits) | low


def _mix(words: Words, key: np.uint64, num_bits: int) -> Words:
    """Return pseudo-random words of ``num_bits`` >= 1 bits, which depend on every bit of ``words`` and ``key``."""
    mixed = words ^ key
    mixed *= _FIRST_FACTOR
    mixed ^= mixed >> _HALF_WORD
    mixed *= _SECOND_FACTOR
    mixed >>= np.uint64(64 - num_bits)
    return mixed
