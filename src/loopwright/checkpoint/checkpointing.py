"""`Checkpointing`: when checkpoints are saved, and which of them are kept."""

from __future__ import annotations

from loopwright.errors import SettingError, check_count, refuse, refuse_type
from loopwright.hooks import Callback


class Checkpointing(Callback):
    """Save checkpoints of a fit into its run directory: the last step always, and others as set here.

    Holds settings only; the plan holds the saves, and the trainer makes them.

    Nothing is removed unless ``keep_last`` is given, and nothing before a newer checkpoint is whole on the disk. Then
    of the run's checkpoints these are kept: the newest, as many as ``keep_last`` says; the best by ``monitor``, of
    those whose step was validated; and those of every ``keep_every``-th step. A best one is known when its step has
    been validated, which follows its save, so that until the next save one more is there. What is not this run's is
    left alone: checkpoints that were in the run directory before the fit, but for those that a resumed run made
    itself up to where it goes on, and folders with other names or without a manifest.

    Args:
        every_n_steps: also save where ``global_step`` is a multiple of this; None: the last step only.
        keep_last: how many of the newest to keep; None: all, and then nothing is ever removed.
        keep_every: with ``keep_last``, keep those for ever whose ``global_step`` is a multiple of this, which is
            itself one of ``every_n_steps``; None: none.
        monitor: metric whose best value a fit reports, such as ``val/loss``; its step has a checkpoint where one was
            saved then. None: the first one named ``val/…loss``.
        mode: whether the best ``monitor`` is its least (``min``) or its greatest (``max``).
        on_save_error: what a checkpoint that cannot be written does to the fit: ``stop`` ends it with a `SaveError`;
            ``continue`` says so and tries again at the next save. The last save of a fit ends it in any case.
        background: whether the fit goes on while a checkpoint is written, as soon as its tensors are copied, which
            takes as much of the host's memory again. Before it gets its name it is read back as a whole. The next save
            and the end of the fit wait for it; then its error is raised, if there was one, and its
            ``on_after_save_checkpoint`` called.

    Raises:
        ValueError: for values other than these.
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        keep_last: int | None = None,
        keep_every: int | None = None,
        monitor: str | None = None,
        mode: str = "min",
        on_save_error: str = "stop",
        background: bool = False,
    ) -> None:
        self._every_n_steps = _count("every_n_steps", every_n_steps, "a whole number of steps, 1 or more, or null")
        self._keep_last = _count("keep_last", keep_last, "a whole number of checkpoints, 1 or more, or null for all")
        self._keep_every = _count("keep_every", keep_every, "a whole number of steps, 1 or more, or null for none")
        if self._keep_every is not None:
            _check_keep_every(self._keep_every, self._keep_last, self._every_n_steps)
        if monitor is not None and not isinstance(monitor, str):
            raise refuse_type("monitor", monitor, "the name of a metric, such as 'val/loss', or null")
        if monitor is not None and not monitor.strip():
            raise refuse("monitor", monitor, "the name of a metric, such as 'val/loss', or null")
        if mode not in ("min", "max"):
            raise refuse("mode", mode, "'min' or 'max'")
        if on_save_error not in ("stop", "continue"):
            raise refuse("on_save_error", on_save_error, "'stop' or 'continue'")
        if not isinstance(background, bool):
            raise refuse_type("background", background, "true or false")
        self._monitor = monitor
        self._mode = mode
        self._on_save_error = on_save_error
        self._background = background

    @property
    def every_n_steps(self) -> int | None:
        """Steps between two saves; None: the last step only."""
        return self._every_n_steps

    @property
    def keep_last(self) -> int | None:
        """How many of the newest checkpoints are kept; None: all."""
        return self._keep_last

    @property
    def keep_every(self) -> int | None:
        """Checkpoints of multiples of this are kept for ever; None: of none."""
        return self._keep_every

    @property
    def monitor(self) -> str | None:
        """The metric whose best value a fit reports, if one is named."""
        return self._monitor

    @property
    def mode(self) -> str:
        """``min`` or ``max``: which value of `monitor` is best."""
        return self._mode

    @property
    def on_save_error(self) -> str:
        """``stop`` or ``continue``: what a checkpoint that cannot be written does to the fit."""
        return self._on_save_error

    @property
    def background(self) -> bool:
        """Whether the fit goes on while a checkpoint is written."""
        return self._background


def _count(setting: str, value: int | None, meaning: str) -> int | None:
    return None if value is None else check_count(setting, value, meaning)


def _check_keep_every(keep_every: int, keep_last: int | None, every_n_steps: int | None) -> None:
    """Refuse a ``keep_every`` that would do nothing, or other than it says."""
    if keep_last is None:
        problem = f"={keep_every} with keep_last=null, which keeps all; expected keep_last, a number, as well."
        raise SettingError("keep_every", problem)
    if every_n_steps is None:
        problem = f"={keep_every} with every_n_steps=null, which saves the last step only; expected every_n_steps too."
        raise SettingError("keep_every", problem)
    if keep_every % every_n_steps:
        nearest = max(1, round(keep_every / every_n_steps)) * every_n_steps
        problem = (
            f": expected a multiple of every_n_steps={every_n_steps}, as other steps are not saved; try {nearest}."
        )
        raise SettingError("keep_every", f"={keep_every}{problem}")
