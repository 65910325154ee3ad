"""`Restarts`: decides whether the supervisor restarts a run whose process has died."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Restarts:
    """Counts how often a run has died since its newest checkpoint. A newer checkpoint resets the count.

    Args:
        max_in_a_row: maximum number of restarts without a new checkpoint.
        newest_step: step of the newest checkpoint; None if the run has no checkpoint.
        num_in_a_row: number of times that the run has died since the checkpoint of ``newest_step``.
    """

    max_in_a_row: int
    newest_step: int | None = None
    num_in_a_row: int = 0

    def allow_another(self, newest_step: int | None) -> bool:
        """Add one death of the run to the count, and return whether the run may be restarted.

        Args:
            newest_step: step of the newest checkpoint when the run died; None if the run had no checkpoint.
        """
        if newest_step is not None and (self.newest_step is None or newest_step > self.newest_step):
            self.newest_step, self.num_in_a_row = newest_step, 0
        self.num_in_a_row += 1
        return self.num_in_a_row <= self.max_in_a_row
