"""The order in which a pass reads a data set. Reading can start at any position without computing earlier ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from loopwright.data.reading.permutation import Permutation
from loopwright.seeding import derive

# A permutation of at most this many samples is drawn and held in memory (8 MB, 25 ms). Longer ones are computed while
# they are read.
_MAX_HELD_SAMPLES = 2**20

# Indices that are computed at a time if a batch has fewer, because each slice of a computed order has a fixed cost.
_NUM_INDICES_AHEAD = 4096

Order = range | Tensor | Permutation


def pass_order(num_samples: int, *, is_shuffled: bool, seed: int, pass_index: int) -> Order:
    """Return the indices of the samples of one pass in the order in which they are read.

    Args:
        num_samples: number of samples in the data set.
        is_shuffled: whether each pass has its own permutation, determined by (seed, pass_index).
        seed: seed of the run.
        pass_index: number of the pass.

    Returns:
        ``num_samples`` distinct indices, int64. Drawing them does not change any existing random generator.
    """
    if not is_shuffled:
        return range(num_samples)
    key = derive(seed, "order", pass_index)
    if num_samples > _MAX_HELD_SAMPLES:
        return Permutation(num_samples, key)
    return torch.randperm(num_samples, generator=torch.Generator().manual_seed(key))


def index_batches(order: Order, batch_size: int, first: int, *, drop_last: bool) -> Iterator[list[int]]:
    """Cut ``order`` into batches of indices, and yield them from batch number ``first`` on."""
    num_samples = len(order)
    stop = num_samples - num_samples % batch_size if drop_last else num_samples
    num_ahead = max(1, _NUM_INDICES_AHEAD // batch_size) * batch_size
    for start in range(first * batch_size, stop, num_ahead):
        ahead = order[start : min(start + num_ahead, stop)]
        indices = list(ahead) if isinstance(ahead, range) else ahead.tolist()
        for place in range(0, len(indices), batch_size):
            yield indices[place : place + batch_size]


def num_batches(num_samples: int, batch_size: int, *, drop_last: bool) -> int:
    """Return the number of batches in a pass. A smaller last batch counts, unless it is dropped."""
    return num_samples // batch_size if drop_last else -(-num_samples // batch_size)
