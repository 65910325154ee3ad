"""`Alone`: the one process of a run that has no others."""

from __future__ import annotations

from torch import Tensor


class Alone:
    """A run in one process: sums, gathers and shares are what this process has."""

    rank = 0
    world_size = 1
    local_rank = 0

    def add(self, values: Tensor) -> Done:
        """The sum over one process is ``values`` as they are."""
        return Done()

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """The data of this process."""
        return [data]

    def share_bytes(self, data: bytes | None) -> bytes:
        """The data of this process, which is process 0.

        Raises:
            ValueError: if there is none.
        """
        if data is None:
            raise ValueError("share_bytes: expected the data of process 0; there is no other process.")
        return data

    def leave(self) -> None:
        """There is no group to leave."""


class Done:
    """A sum that was complete when it was begun."""

    def wait(self) -> None:
        """Return at once."""
