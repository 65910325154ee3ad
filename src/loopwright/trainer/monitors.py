"""Functions that check the metrics in settings. A metric is refused if nothing in the run can log it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import nn

from loopwright.callbacks import EarlyStopping
from loopwright.checkpoint import Checkpointing
from loopwright.engine.parts import Parts
from loopwright.errors import SettingError, did_you_mean
from loopwright.hooks import Callback, Logger
from loopwright.plan import Plan, metric_problem
from loopwright.protocols import LogsMetrics
from loopwright.trainer.arguments import SchedulerSpec

_log = logging.getLogger("loopwright")


class NamedMetric(NamedTuple):
    """A metric that a setting names.

    Attributes:
        setting: name of the setting.
        metric: name of the metric.
        is_of_round: whether the metric is read at the end of each round of validations.
    """

    setting: str
    metric: str
    is_of_round: bool = False


def named_metrics(
    checkpoint: Checkpointing | None, specs: Sequence[SchedulerSpec], callbacks: Iterable[tuple[str, Callback]]
) -> list[NamedMetric]:
    """Return the metrics that checkpoints, schedulers and callbacks monitor.

    Args:
        checkpoint: settings of the checkpoints; None: no checkpoints are saved.
        specs: pairs of a callable that builds a scheduler and the metric that the scheduler monitors.
        callbacks: pairs of the name of a callback in messages and the callback.
    """
    monitors = [] if checkpoint is None or checkpoint.monitor is None else [checkpoint.monitor]
    return [
        *(NamedMetric("checkpoint.monitor", monitor) for monitor in monitors),
        *(NamedMetric("monitor", monitor, is_of_round=True) for _, monitor in specs if monitor is not None),
        *(
            NamedMetric(f"{name}.monitor", callback.monitor, is_of_round=True)
            for name, callback in callbacks
            if isinstance(callback, EarlyStopping)
        ),
    ]


def check_named_metrics(
    named: Iterable[NamedMetric], plan: Plan, listeners: Iterable[Callback], *, has_own_outputs: bool
) -> list[str]:
    """Refuse a metric that nothing in this run can log.

    A callback or loop whose class is not in Loopwright may log any metric. If the run has such an object, a warning is
    returned instead. Loggers do not count.

    Args:
        named: the metrics.
        plan: plan of the fit.
        listeners: callbacks and loops of the run.
        has_own_outputs: whether the model can return outputs whose names contain a slash; see `is_own_model`.

    Returns:
        The warnings.

    Raises:
        SettingError: for the first metric that nothing can log.
    """
    listeners = [*listeners]
    warnings = []
    for setting, metric, is_of_round in named:
        problem = metric_problem(metric, plan, is_of_round=is_of_round, has_own_outputs=has_own_outputs)
        if problem is None or any(_is_shipped(each) and _logs(each, metric) for each in listeners):
            continue
        own = next((each for each in listeners if not _is_shipped(each) and not isinstance(each, Logger)), None)
        if own is None:
            raise SettingError(setting, problem)
        warnings.append(f"{setting}{problem} Only {type(own).__name__} may log this metric.")
    return warnings


def check_monitors(
    parts: Parts, checkpoint: Checkpointing | None, specs: Sequence[SchedulerSpec], plan: Plan
) -> list[str]:
    """Check the metrics that the checkpoints, schedulers and callbacks of a trainer monitor. See `check_named_metrics`.

    Returns:
        The warnings of `check_named_metrics`.

    Raises:
        SettingError: for the first metric that nothing can log.
    """
    listeners = [callback for _, callback in parts.callbacks]
    named = named_metrics(checkpoint, specs, [(type(callback).__name__, callback) for callback in listeners])
    return check_named_metrics(named, plan, listeners, has_own_outputs=is_own_model(parts.model))


def warn_of_missing_monitor(parts: Parts, checkpoint: Checkpointing | None) -> None:
    """Log a warning if a fit has ended as planned, and the metric that checkpoints monitor was never logged.

    `MetricLog.refuse_missing_monitor` refuses a ``val/…`` metric earlier, unless nothing was validated.
    """
    monitor, latest, state = None if checkpoint is None else checkpoint.monitor, parts.log.latest, parts.state
    if monitor is None or monitor.startswith("val/") or monitor in latest or not latest:
        return
    if state.stop_reason is None and state.global_step:
        _log.warning("checkpoint.monitor=%r: no such metric was logged.%s", monitor, did_you_mean(monitor, latest))


def is_own_model(model: nn.Module) -> bool:
    """Return whether a model contains a module of a class that is neither in Loopwright nor in torch."""
    return any(_package_of(module) not in ("loopwright", "torch") for module in model.modules())


def _is_shipped(listener: Callback) -> bool:
    return _package_of(listener) == "loopwright"


def _logs(listener: Callback, metric: str) -> bool:
    return isinstance(listener, LogsMetrics) and listener.logs(metric)


def _package_of(instance: object) -> str:
    return type(instance).__module__.partition(".")[0]
