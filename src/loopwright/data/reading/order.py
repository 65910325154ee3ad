"""Functions that compute the order in which a pass reads a data set.

A pass can start at any batch. If more than 2**20 samples are shuffled, the indices before this batch are not computed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from loopwright.data.reading.permutation import Permutation
from loopwright.seeding import derive

# Largest number of samples for which the whole permutation is drawn and kept in memory (8 MB, 25 ms). Longer
# permutations are computed in slices during the pass.
_MAX_HELD_SAMPLES = 2**20

# Number of indices in one slice of the order, rounded down to whole batches; a slice has at least one batch. Computing
# a slice of a `Permutation` has a fixed cost, so a slice should contain many indices.
_NUM_INDICES_AHEAD = 4096

Order = range | Tensor | Permutation


def pass_order(num_samples: int, *, is_shuffled: bool, seed: int, pass_index: int) -> Order:
    """Return the sample indices of one pass in reading order.

    Args:
        num_samples: number of samples in the data set.
        is_shuffled: True for a permutation determined by (seed, pass_index), False for the order 0, 1, 2, …
        seed: seed of the run.
        pass_index: index of the pass, from 0.

    Returns:
        A sequence that contains each index in [0, num_samples) once: a range, an int64 tensor, or a `Permutation`.
    """
    if not is_shuffled:
        return range(num_samples)
    key = derive(seed, "order", pass_index)
    if num_samples > _MAX_HELD_SAMPLES:
        return Permutation(num_samples, key)
    return torch.randperm(num_samples, generator=torch.Generator().manual_seed(key))


def index_batches(order: Order, batch_size: int, first: int, *, drop_last: bool) -> Iterator[list[int]]:
    """Cut ``order`` into batches of indices, and yield the batches, beginning with batch ``first`` (from 0)."""
    num_samples = len(order)
    stop = num_samples - num_samples % batch_size if drop_last else num_samples
    num_ahead = max(1, _NUM_INDICES_AHEAD // batch_size) * batch_size
    for start in range(first * batch_size, stop, num_ahead):
        ahead = order[start : min(start + num_ahead, stop)]
        indices = list(ahead) if isinstance(ahead, range) else ahead.tolist()
        for place in range(0, len(indices), batch_size):
            yield indices[place : place + batch_size]


def num_batches(num_samples: int, batch_size: int, *, drop_last: bool) -> int:
    """Return the number of batches in a pass, including a smaller last batch unless ``drop_last`` is True."""
    return num_samples // batch_size if drop_last else -(-num_samples // batch_size)
