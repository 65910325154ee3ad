"""Where a run is, and what it came to: `RunState`, the one object with counters, and `FitResult`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loopwright.plan import Plan


@dataclass(slots=True)
class RunState:
    """The counters of a run; the engine alone moves them.

    Attributes:
        global_step: steps completed since the run began, across resumes.
        pass_index: the pass through the training dataloader that is being read.
        micro_batch_index: micro-batches of that pass already read; 0 again once the pass is exhausted.
        is_inside_window: whether a step has begun and is not completed.
        is_updated: whether the present step has changed the parameters.
        is_log_step: whether the values of the present step are read and logged.
        window_start: (pass_index, micro_batch_index) where the present step began.
        validated: (``global_step``, validations completed of the round that follows it), of the last round.
        stop_reason: why this fit ends before its plan does, once that is decided.
        is_interrupted: whether that is an interruption, after which the run is to be resumed.
        validation_name: of the validation set being validated: the prefix of its metrics.
        downstream_name: of the downstream validation that runs: the prefix of what it validates.
        validation_checkpoint: the checkpoint whose weights are being validated; None: those of the run.
    """

    global_step: int = 0
    pass_index: int = 0
    micro_batch_index: int = 0
    is_inside_window: bool = False
    is_updated: bool = False
    is_log_step: bool = False
    window_start: tuple[int, int] = (0, 0)
    validated: tuple[int, int] = (0, 0)
    stop_reason: str | None = None
    is_interrupted: bool = False
    validation_name: str | None = None
    downstream_name: str | None = None
    validation_checkpoint: Path | None = None


class Interruption(BaseException):
    """Ends a validation for a fit that is interrupted; it never leaves the fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best value so far of the monitored metric, and the step it belongs to."""

    name: str
    value: float
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """What a fit came to.

    Attributes:
        state: "completed" where the plan was carried out, "stopped" where `Trainer.stop` ended it, "interrupted"
            where it is to be resumed.
        global_step: steps completed since the run began.
        metrics: the last value of each metric, by name.
        best: the best value of the monitored metric; None where it was never logged.
        seconds: wall clock of this fit.
        plan: what was carried out; after a resume, the rest of the run's plan.
    """

    state: Literal["completed", "stopped", "interrupted"]
    global_step: int
    metrics: Mapping[str, float]
    best: Best | None
    seconds: float
    plan: Plan
