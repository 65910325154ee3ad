"""`Checkpointing`: when checkpoints are saved."""

from __future__ import annotations

from loopwright.errors import check_count, refuse, refuse_type
from loopwright.hooks import Callback


class Checkpointing(Callback):
    """Save checkpoints of a fit into its run directory: the last step always, and others as set here.

    Holds settings only; the plan holds the saves, and the trainer makes them.

    Args:
        every_n_steps: also save where ``global_step`` is a multiple of this; None: the last step only.
        monitor: metric whose best value a fit reports, such as ``val/loss``; its step has a checkpoint where one was
            saved then. None: the first one named ``val/…loss``.
        mode: whether the best ``monitor`` is its least (``min``) or its greatest (``max``).

    Raises:
        ValueError: for values other than these.
    """

    def __init__(self, every_n_steps: int | None = None, monitor: str | None = None, mode: str = "min") -> None:
        self._every_n_steps = (
            None
            if every_n_steps is None
            else check_count("every_n_steps", every_n_steps, "a whole number of steps, 1 or more, or null")
        )
        if monitor is not None and not isinstance(monitor, str):
            raise refuse_type("monitor", monitor, "the name of a metric, such as 'val/loss', or null")
        if monitor is not None and not monitor.strip():
            raise refuse("monitor", monitor, "the name of a metric, such as 'val/loss', or null")
        if mode not in ("min", "max"):
            raise refuse("mode", mode, "'min' or 'max'")
        self._monitor = monitor
        self._mode = mode

    @property
    def every_n_steps(self) -> int | None:
        """Steps between two saves; None: the last step only."""
        return self._every_n_steps

    @property
    def monitor(self) -> str | None:
        """The metric whose best value a fit reports, if one is named."""
        return self._monitor

    @property
    def mode(self) -> str:
        """``min`` or ``max``: which value of `monitor` is best."""
        return self._mode
