"""`HostCopies`, which copies a state to host memory, so that training can change the state during a save."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopies:
    """Copies named tensors into host memory, and reuses this memory for the next save.

    The first write to newly allocated memory takes far longer than a write to memory that was used before. An
    instance contains one state at a time. This state must be completely on disk before the next state is copied.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Tensor] = {}
        self._taken: dict[tuple[str, str], Tensor] = {}

    def take(self, file: str, name: str, tensor: Tensor) -> Tensor:
        """Return a contiguous CPU copy of a tensor from any device. The copy is complete when this method returns."""
        buffer = self._kept.get((file, name))
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            # A GPU copies to pinned memory at full speed, and to other memory more slowly.
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        self._taken[file, name] = buffer.copy_(tensor)
        return buffer

    def end(self) -> None:
        """Finish the current state, and free the memory of tensors that only earlier states contained."""
        self._kept, self._taken = self._taken, {}
