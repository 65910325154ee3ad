"""`Checkpointing`: when checkpoints are saved, and which of them are kept."""

from __future__ import annotations

from dataclasses import dataclass

from loopwright.errors import SettingError, check_count, refuse, refuse_type
from loopwright.hooks import Callback


@dataclass(frozen=True, slots=True)
class Checkpointing(Callback):
    """Saves checkpoints of a fit into its run directory: always of the last step, and of others by these settings.

    It holds settings only. The plan contains the saves, and the trainer writes them.

    Checkpoints are removed only if ``keep_last`` is given, and only when a newer checkpoint is complete on the disk.
    These checkpoints of the run are kept: the newest ``keep_last``; the best by ``monitor`` of the validated steps; and
    the multiples of ``keep_every``. A step is validated after it is saved. So if it becomes the best, the best before
    it is kept until the next save. Checkpoints of other runs are not touched. Checkpoints that were in the run
    directory before a fit count as another run's, unless the fit resumes from one of them: then it and the steps
    before it belong to the run. Folders with other names, or without a manifest, are never touched.

    Args:
        every_n_steps: steps between saves, at multiples in ``global_step``; None: only the last step is saved.
        keep_last: number of newest checkpoints to keep; None: all, and no checkpoint is ever removed.
        keep_every: with ``keep_last``, checkpoints at multiples of this ``global_step`` are kept without limit; it must
            be a multiple of ``every_n_steps``. None: no further checkpoints are kept.
        monitor: metric whose best value a fit reports, such as ``val/loss``. Its best step has a checkpoint only if
            that step was saved. None: the first metric named ``val/…loss``.
        mode: whether the best ``monitor`` is the smallest (``min``) or the largest (``max``).
        on_save_error: effect of a checkpoint that cannot be written: ``stop`` ends the fit with a `SaveError`;
            ``continue`` logs a warning, and the next save tries again. A failure of the last save ends the fit with
            either.
        background: whether training continues while a checkpoint is written. It continues as soon as the tensors are
            copied, which needs host memory of their size. The checkpoint is read back whole before it gets its name.
            The next save and the end of the fit wait for it; then they raise its error, if there is one, or call its
            ``on_after_save_checkpoint``.

    Raises:
        ValueError: for any other value.
    """

    every_n_steps: int | None = None
    keep_last: int | None = None
    keep_every: int | None = None
    monitor: str | None = None
    mode: str = "min"
    on_save_error: str = "stop"
    background: bool = False

    def __post_init__(self) -> None:
        """Check every value, and replace integers of other libraries by ints."""
        for name, meaning in (
            ("every_n_steps", "a whole number of steps, 1 or more, or null"),
            ("keep_last", "a whole number of checkpoints, 1 or more, or null for all"),
            ("keep_every", "a whole number of steps, 1 or more, or null for none"),
        ):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check_count(name, value, meaning))
        self._check_keep_every()
        if self.monitor is not None and not isinstance(self.monitor, str):
            raise refuse_type("monitor", self.monitor, "the name of a metric, such as 'val/loss', or null")
        if self.monitor is not None and not self.monitor.strip():
            raise refuse("monitor", self.monitor, "the name of a metric, such as 'val/loss', or null")
        if self.mode not in ("min", "max"):
            raise refuse("mode", self.mode, "'min' or 'max'")
        if self.on_save_error not in ("stop", "continue"):
            raise refuse("on_save_error", self.on_save_error, "'stop' or 'continue'")
        if not isinstance(self.background, bool):
            raise refuse_type("background", self.background, "true or false")

    def _check_keep_every(self) -> None:
        """Refuse a ``keep_every`` that has no effect, or names steps that are not saved."""
        keep_every, every_n_steps = self.keep_every, self.every_n_steps
        if keep_every is None:
            return
        if self.keep_last is None:
            problem = f"={keep_every} with keep_last=null, which keeps all; expected keep_last, a number, as well."
            raise SettingError("keep_every", problem)
        if every_n_steps is None:
            problem = f"={keep_every} with every_n_steps=null, which saves the last step only; expected every_n_steps."
            raise SettingError("keep_every", problem)
        if keep_every % every_n_steps:
            nearest = max(1, round(keep_every / every_n_steps)) * every_n_steps
            problem = f"expected a multiple of every_n_steps={every_n_steps}, as other steps are not saved"
            raise SettingError("keep_every", f"={keep_every}: {problem}; try {nearest}.")
