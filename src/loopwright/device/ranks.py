"""`Alone`: the implementation of `Ranks` for a run in one process."""

from __future__ import annotations

from torch import Tensor


class Alone:
    """The `Ranks` of a run in one process. Sums and gathered data consist of the values of this process."""

    rank = 0
    world_size = 1
    local_rank = 0

    def add(self, values: Tensor) -> Done:
        """Return a completed sum. ``values`` is not changed, because it equals the sum over one process."""
        return Done()

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Return a list with ``data`` as its only entry."""
        return [data]

    def share_bytes(self, data: bytes | None) -> bytes:
        """Return ``data``, as this process is process 0.

        Raises:
            ValueError: if ``data`` is None.
        """
        if data is None:
            raise ValueError("share_bytes: expected bytes, as this is process 0.")
        return data

    def leave(self) -> None:
        """Do nothing, as there is no group of processes."""


class Done:
    """A sum that is complete when it is created."""

    def wait(self) -> None:
        """Return immediately, as the sum is complete."""
