"""`Checkpointing`, the settings that determine when checkpoints are saved and which checkpoints are kept."""

from __future__ import annotations

from dataclasses import dataclass, fields

from loopwright.errors import SettingError, check_count, refuse, refuse_type
from loopwright.hooks import Callback
from loopwright.plan import check_interval, check_multiple, settle_mode


@dataclass(frozen=True, slots=True)
class Checkpointing(Callback):
    """Settings for saving the checkpoints of a fit in its run directory. The trainer writes the checkpoints.

    The last step of a fit is always saved. ``every_n_steps`` and ``at_validations`` select further steps.

    Checkpoints are removed only if ``keep_last`` is given, and only when a newer checkpoint is complete on the disk.
    These checkpoints of the run are kept: the newest ``keep_last`` checkpoints, the checkpoint with the best validated
    value of ``monitor``, and the checkpoints whose step is a multiple of ``keep_every``. A step is validated after its
    checkpoint is saved. If this step becomes the best step, the checkpoint of the previous best step is therefore kept
    until the next save. Checkpoints of other runs are never removed. A checkpoint that was in the run directory
    before a fit belongs to another run. There is one exception: if the fit resumes from a checkpoint in the run
    directory, this checkpoint and the checkpoints of earlier steps belong to the run. A folder that is not named
    ``step_<number>``, or that has no valid manifest, is never removed.

    Args:
        every_n_steps: number of steps between saves; a step is saved if ``global_step`` is a multiple of this number.
            Text such as ``"1 epoch"``: a number of epochs, which must be a whole number of steps. None: only the last
            step and the steps of ``at_validations`` are saved.
        keep_last: number of newest checkpoints to keep; None: all checkpoints are kept.
        keep_every: number of steps; a checkpoint is also kept if its ``global_step`` is a multiple of this number. The
            number must be a multiple of ``every_n_steps``, and requires ``keep_last``. It may be in epochs, too. None:
            no additional checkpoints are kept.
        monitor: name of the metric whose best value a fit reports, such as ``val/loss``. If a validation computes the
            metric, ``at_validations`` ensures that the best step has a checkpoint. Without ``at_validations``, the best
            step has a checkpoint only if it is the last step or ``every_n_steps`` selects it. None: the loss of the
            validation, or the mean of the losses of named validation sets; a resumed run keeps the metric and the mode
            of its checkpoint.
        mode: whether the best value of ``monitor`` is the smallest (``min``) or the largest (``max``) value. None:
            ``min`` for a loss, a perplexity or an error; for any other metric the mode must be given.
        on_save_error: reaction to a checkpoint that cannot be written: ``stop`` ends the fit with a `SaveError`;
            ``continue`` logs a warning, and training continues. If the last save of a fit fails, the fit ends with a
            `SaveError` with either setting.
        background: whether training continues while a checkpoint is written. Training continues as soon as the tensors
            are copied. The copies need as much host memory as the tensors. All files are read back and verified before
            the checkpoint folder gets its final name. The next save and the end of the fit wait until the checkpoint is
            written. After this wait, the trainer applies ``on_save_error`` if writing failed; otherwise it calls
            ``on_after_save_checkpoint``.
        at_validations: whether each step that is validated is saved before its validations, so that the best step has a
            checkpoint.

    Raises:
        SettingError: for an invalid value.
        SettingTypeError: for a value of a wrong type.
    """

    every_n_steps: int | str | None = None
    keep_last: int | None = None
    keep_every: int | str | None = None
    monitor: str | None = None
    mode: str | None = None
    on_save_error: str = "stop"
    background: bool = False
    at_validations: bool = True

    def __post_init__(self) -> None:
        """Check every value, and convert integers of other libraries to int."""
        meaning = "a whole number of checkpoints, 1 or more, or null for all"
        checked = {
            "every_n_steps": check_interval("every_n_steps", self.every_n_steps),
            "keep_last": None if self.keep_last is None else check_count("keep_last", self.keep_last, meaning),
            "keep_every": check_interval("keep_every", self.keep_every, none="null for none"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_keep_every()
        if self.monitor is not None and not isinstance(self.monitor, str):
            raise refuse_type("monitor", self.monitor, "the name of a metric, such as 'val/loss', or null")
        if self.monitor is not None and not self.monitor.strip():
            raise refuse("monitor", self.monitor, "the name of a metric, such as 'val/loss', or null")
        object.__setattr__(self, "mode", settle_mode(self.mode, self.monitor))
        if self.on_save_error not in ("stop", "continue"):
            raise refuse("on_save_error", self.on_save_error, "'stop' or 'continue'")
        for name in ("background", "at_validations"):
            if not isinstance(getattr(self, name), bool):
                raise refuse_type(name, getattr(self, name), "true or false")

    def __repr__(self) -> str:
        """Return the name of the class and the settings that differ from their defaults."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        defaults = {field.name: field.default for field in fields(self)}
        if self.monitor is None:
            defaults["mode"] = "min"  # the mode that `__post_init__` has set for the loss
        shown = [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _check_keep_every(self) -> None:
        """Raise an error if ``keep_every`` has no effect, or if the steps at its multiples are not saved.

        If one interval is in steps and the other in epochs, the multiples are checked when the plan is computed.
        """
        keep_every, every_n_steps = self.keep_every, self.every_n_steps
        if keep_every is None:
            return
        if self.keep_last is None:
            problem = f"={keep_every}: keep_last=null already keeps all checkpoints; expected keep_last as a number."
            raise SettingError("keep_every", problem)
        if every_n_steps is None:
            problem = "every_n_steps=null saves none of its multiples; expected every_n_steps as a number."
            raise SettingError("keep_every", f"={keep_every}: {problem}")
        check_multiple(keep_every, every_n_steps)
