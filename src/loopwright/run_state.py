"""`RunState`, the counters of a run, and `FitResult`, the result of a fit.

A downstream validation is a validation that a callback runs in its hook ``run_validation``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loopwright.plan import Plan

# Key in the saved state of a callback. The value is a mapping from parameter names to averaged weights. Validations use
# the averaged weights instead of the trained weights.
AVERAGED_WEIGHTS = "averaged_weights"


@dataclass(slots=True)
class RunState:
    """Counters and flags of a run, such as the number of completed steps.

    Attributes:
        global_step: number of steps completed since the run began, across resumes.
        pass_index: index of the current pass through the training dataloader, from 0.
        micro_batch_index: number of micro-batches read in this pass; reset to 0 at the end of the pass.
        is_inside_window: whether a step has begun and is not yet completed.
        is_updated: whether the update of the current step has been made or skipped.
        is_update_skipped: whether the current step makes no update, because its micro-batches have no items
            (samples or tokens over which the loss is averaged), because a callback called `Trainer.skip_update`, or
            because a scaled gradient overflowed. Schedulers are not stepped then.
        is_padding: whether the current micro-batch has no row for this process. The process then computes another row
            with weight 0; see `Padding`.
        num_parts: number of parts into which each micro-batch is split; above 1 after an out-of-memory error; see
            `Splitting`.
        is_log_step: whether the metrics of the current step are read from the device and logged.
        is_last_micro_batch: whether the current training micro-batch is the last one of its step. Between two training
            micro-batches, the flag describes the earlier one.
        batch_idx: index of the current micro-batch in its train loop, or of the current batch in its validation; None
            outside train loops and validations.
        num_val_batches: number of batches of the validation in progress; None outside a validation.
        window_start: (``pass_index``, ``micro_batch_index``) at the beginning of the current step.
        validated: ``global_step`` of the last round of validations, and the number of validations completed in this
            round, including downstream validations.
        stop_reason: reason why this fit ends before the end of its plan; None: the fit continues. `Stopping` sets it.
        is_interrupted: whether this fit ends early, and a later process will resume the run. A validation in progress
            is then aborted, and the resumed run repeats this validation. `Stopping` sets this flag.
        validation_name: name of the validation set being validated, which is the prefix of its metrics; None if no
            dataloader is being validated.
        downstream_name: name of the running downstream validation, which is the prefix of its metrics; None if no
            downstream validation is running.
        validation_checkpoint: checkpoint whose weights are being validated; None for the weights of this run.
    """

    global_step: int = 0
    pass_index: int = 0
    micro_batch_index: int = 0
    is_inside_window: bool = False
    is_updated: bool = False
    is_update_skipped: bool = False
    is_padding: bool = False
    num_parts: int = 1
    is_log_step: bool = False
    is_last_micro_batch: bool = False
    batch_idx: int | None = None
    num_val_batches: int | None = None
    window_start: tuple[int, int] = (0, 0)
    validated: tuple[int, int] = (0, 0)
    stop_reason: str | None = None
    is_interrupted: bool = False
    validation_name: str | None = None
    downstream_name: str | None = None
    validation_checkpoint: Path | None = None


class Interruption(BaseException):
    """Exception that aborts a validation when a fit is interrupted. The fit catches this exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """Best value of the monitored metric so far, and its step."""

    name: str
    value: float
    step: int


def read_best(values: Any) -> Best | None:
    """Build a `Best` from a mapping that was read from a checkpoint. None is returned unchanged.

    Raises:
        TypeError: if ``values`` does not have the entries of a `Best`.
        ValueError: if an entry is invalid.
    """
    mark = None if values is None else Best(**values)
    if mark is not None and not (
        isinstance(mark.name, str) and isinstance(mark.value, float) and type(mark.step) is int and mark.step >= 0
    ):
        raise ValueError("expected the name, value and step of a metric")
    return mark


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """Result of a fit.

    Attributes:
        state: "completed" if the whole plan was executed, "stopped" if `Trainer.stop` ended the fit, "interrupted" if
            a signal, or `Trainer.stop` with ``is_interruption=True``, ended the fit.
        global_step: number of steps completed since the run began.
        metrics: last value of each metric, by name.
        best: best value of the monitored metric; None if no value except NaN was logged.
        seconds: wall time of this fit in seconds.
        plan: plan of this fit. The plan of a resumed fit contains only the remaining stages.
    """

    state: Literal["completed", "stopped", "interrupted"]
    global_step: int
    metrics: Mapping[str, float]
    best: Best | None
    seconds: float
    plan: Plan = field(repr=False)
