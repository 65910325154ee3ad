"""The order in which a pass reads a data set: sought, never replayed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from loopwright.seeding import derive


def pass_order(num_samples: int, *, is_shuffled: bool, seed: int, pass_index: int) -> range | Tensor:
    """The samples of one pass in the order in which they are read.

    Args:
        num_samples: size of the data set.
        is_shuffled: whether each pass has a permutation of its own, keyed by (seed, pass_index).
        seed: of the run.
        pass_index: number of the pass.

    Returns:
        ``num_samples`` distinct indices, int64; whoever draws them draws from no other stream.
    """
    if not is_shuffled:
        return range(num_samples)
    generator = torch.Generator().manual_seed(derive(seed, "order", pass_index))
    return torch.randperm(num_samples, generator=generator)


def index_batches(order: range | Tensor, batch_size: int, first: int, *, drop_last: bool) -> Iterator[list[int]]:
    """Cut ``order`` into batches of indices, from batch number ``first`` on."""
    num_samples = len(order)
    stop = num_samples - num_samples % batch_size if drop_last else num_samples
    for start in range(first * batch_size, stop, batch_size):
        indices = order[start : start + batch_size]
        yield list(indices) if isinstance(indices, range) else indices.tolist()


def num_batches(num_samples: int, batch_size: int, *, drop_last: bool) -> int:
    """Batches in a pass; the last one may be smaller, unless it is dropped."""
    return num_samples // batch_size if drop_last else -(-num_samples // batch_size)
