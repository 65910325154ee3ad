"""Functions for sharded tensors: tensors of which each process stores only some rows.

torch calls such a tensor a `DTensor`. A strategy creates it. These functions recognise it by its methods, so that code
outside the strategies need not import ``torch.distributed``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_WHOLE = (Tensor, nn.Parameter, nn.Buffer)


def is_sharded(value: object) -> bool:
    """Return whether ``value`` is a tensor of which each process stores only some rows."""
    return isinstance(value, Tensor) and type(value) not in _WHOLE and hasattr(value, "to_local")


def has_own_rows(tensor: Tensor) -> bool:
    """Return whether a sharded tensor is cut along its first dimension, and not copied or cut in another way."""
    sharded: Any = tensor
    return all(each.is_shard(0) for each in sharded.placements)


def own_rows(tensor: Tensor) -> Tensor:
    """Return the rows of a sharded tensor that this process stores, without a copy. Return any other tensor itself."""
    if not is_sharded(tensor):
        return tensor
    sharded: Any = tensor.detach()
    rows: Tensor = sharded.to_local()
    return rows


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return all rows of a sharded tensor in every process. Return any other tensor itself.

    Every process must call this function with the same sharded tensor.
    """
    if not is_sharded(tensor):
        return tensor
    sharded: Any = tensor
    whole: Tensor = sharded.full_tensor()
    return whole


def row_range(num_rows: int, rank: int, world_size: int) -> range:
    """Return the rows that process ``rank`` of ``world_size`` stores, by the rule of `torch.chunk`."""
    size = -(-num_rows // world_size)
    return range(min(rank * size, num_rows), min((rank + 1) * size, num_rows))
