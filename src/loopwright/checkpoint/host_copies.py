"""`HostCopies`: what a save in the background writes, while the run goes on and changes what it was copied from."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopies:
    """Copies of named tensors in the host's memory, which is kept from one save to the next.

    Memory that is touched for the first time is slower by far than copying into it. It holds one state: whoever takes
    the next has to be done with the last.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Tensor] = {}
        self._taken: dict[tuple[str, str], Tensor] = {}

    def take(self, file: str, name: str, tensor: Tensor) -> Tensor:
        """A copy of a tensor, contiguous and on the CPU; done when this returns, whatever device it came from."""
        buffer = self._kept.get((file, name))
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            # Memory of which the system cannot take a page away is what a GPU copies to at full speed.
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        self._taken[file, name] = buffer.copy_(tensor)
        return buffer

    def end(self) -> None:
        """The state is complete: memory of names that were not in it is given back."""
        self._kept, self._taken = self._taken, {}
