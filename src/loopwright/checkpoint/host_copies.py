"""`HostCopies`: copies of a state in host memory for a background save, while training changes the original."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopies:
    """Copies named tensors into host memory, and reuses this memory for the next save.

    The first write to newly allocated memory takes far longer than copying into memory that was used before. The
    object holds one state at a time: write a state completely before copying the next one.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Tensor] = {}
        self._taken: dict[tuple[str, str], Tensor] = {}

    def take(self, file: str, name: str, tensor: Tensor) -> Tensor:
        """Return a contiguous copy of a tensor on the CPU. The copy is complete on return, for any source device."""
        buffer = self._kept.get((file, name))
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            # A GPU copies to pinned memory at full speed, and to other memory more slowly.
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        self._taken[file, name] = buffer.copy_(tensor)
        return buffer

    def end(self) -> None:
        """Mark the state as complete, and free the memory of earlier tensors that are not in it."""
        self._kept, self._taken = self._taken, {}
