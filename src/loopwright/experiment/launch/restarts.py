"""`Restarts`: whether a run that died is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Restarts:
    """Counts the deaths of a run since it last got further; a new checkpoint begins the count again.

    Args:
        max_in_a_row: restarts without a new checkpoint in between.
        newest_step: of the checkpoints that are there; None: there is none.
        num_in_a_row: deaths since then.
    """

    max_in_a_row: int
    newest_step: int | None = None
    num_in_a_row: int = 0

    def allow_another(self, newest_step: int | None) -> bool:
        """Note that the run died with ``newest_step`` as its newest checkpoint; returns whether it is started again."""
        if newest_step is not None and (self.newest_step is None or newest_step > self.newest_step):
            self.newest_step, self.num_in_a_row = newest_step, 0
        self.num_in_a_row += 1
        return self.num_in_a_row <= self.max_in_a_row
