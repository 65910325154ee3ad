"""Functions that refuse or warn about settings with the name of a metric that nothing in the run can log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from loopwright.callbacks import EarlyStopping
from loopwright.checkpoint import Checkpointing
from loopwright.engine.parts import Parts
from loopwright.errors import SettingError, did_you_mean
from loopwright.hooks import Callback, Logger, is_shipped
from loopwright.plan import Plan, mean_prefix, metric_problem
from loopwright.protocols import HasObjective, LogsMetrics
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
    """Return the metrics that checkpoints, schedulers and callbacks monitor, and the objective of the run.

    Args:
        checkpoint: settings of the checkpoints; None: no checkpoints are saved.
        specs: pairs of a callable that builds a scheduler and the metric that the scheduler monitors.
        callbacks: pairs of the name of a callback in messages and the callback.
    """
    monitors = [] if checkpoint is None or checkpoint.monitor is None else [checkpoint.monitor]
    callbacks = [*callbacks]
    return [
        *(NamedMetric("objective", each.objective) for _, each in callbacks if isinstance(each, HasObjective)),
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
    """Refuse a metric that no callback, loop or validation in this run can log.

    The user's own callbacks and loops can log any metric. If the run has any of them, this function returns a warning
    instead of raising an error. A metric in several settings is reported once, for the first setting.

    Args:
        named: metrics that settings name.
        plan: plan of the fit.
        listeners: callbacks and loops of the run.
        has_own_outputs: whether the model can return outputs whose names contain a slash; see `is_own_model`.

    Returns:
        The warnings.

    Raises:
        SettingError: for the first metric that nothing can log.
    """
    listeners = [*listeners]
    warnings: dict[str, str] = {}
    for setting, metric, is_of_round in named:
        problem = metric_problem(metric, plan, is_of_round=is_of_round, has_own_outputs=has_own_outputs)
        if problem is not None and metric not in warnings and not _logged_by_shipped(listeners, metric):
            warnings[metric] = _warn_or_refuse(setting, problem, listeners)
    return [*warnings.values()]


def check_tried_metrics(
    parts: Parts,
    checkpoint: Checkpointing | None,
    specs: Sequence[SchedulerSpec],
    tried: Mapping[str, list[str] | None],
) -> list[str]:
    """Refuse a monitored metric that is missing in the model's outputs for the first validation batches.

    Args:
        parts: objects of the trainer.
        checkpoint: settings of the checkpoints; None: no checkpoints are saved.
        specs: pairs of a callable that builds a scheduler, and the monitored metric or None.
        tried: names of the metrics that `try_validation` returned, by validation set. None: the metrics of the set are
            unknown.

    Returns:
        Warnings about metrics that only the user's callbacks and loops can log. A metric in several settings is
        reported once, for the first setting.

    Raises:
        SettingError: for the first metric that nothing can log.
    """
    listeners = [callback for _, callback in parts.callbacks]
    logged = _with_means(tried)
    available = [f"{prefix}/{key}" for prefix, keys in logged.items() for key in keys or ()]
    warnings: dict[str, str] = {}
    for setting, metric, _ in named_metrics(checkpoint, specs, _with_names(listeners)):
        prefix, _, key = metric.rpartition("/")
        keys = logged.get(prefix)
        if keys is None or key in keys or metric in warnings or _logged_by_shipped(listeners, metric):
            continue
        problem = f"={metric!r}: no such metric. Available: {', '.join(available)}.{did_you_mean(metric, available)}"
        warnings[metric] = _warn_or_refuse(setting, problem, listeners)
    return [*warnings.values()]


def _with_means(tried: Mapping[str, list[str] | None]) -> dict[str, list[str] | None]:
    """Return ``tried``, with one more entry for the means over the sets if `mean_prefix` returns a prefix.

    The entry lists the metrics that all sets with known metrics have. The entry is None if no set has known metrics.
    """
    logged = dict(tried)
    mean, known = mean_prefix([*tried]), [keys for keys in tried.values() if keys is not None]
    if mean is not None:
        logged[mean] = [key for key in known[0] if all(key in keys for keys in known)] if known else None
    return logged


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
    named = named_metrics(checkpoint, specs, _with_names(listeners))
    return check_named_metrics(named, plan, listeners, has_own_outputs=is_own_model(parts.model))


def warn_of_missing_monitor(parts: Parts, checkpoint: Checkpointing | None) -> None:
    """Log a warning if a fit was not stopped, and the metric ``checkpoint.monitor`` was never logged.

    A ``val/…`` metric is ignored here, because `MetricLog.refuse_missing_monitor` refuses it after a validation.
    """
    monitor, latest, state = None if checkpoint is None else checkpoint.monitor, parts.log.latest, parts.state
    if monitor is None or monitor.startswith("val/") or monitor in latest or not latest:
        return
    if state.stop_reason is None and state.global_step:
        _log.warning("checkpoint.monitor=%r: no such metric was logged.%s", monitor, did_you_mean(monitor, latest))


def is_own_model(model: nn.Module) -> bool:
    """Return whether a model contains a module whose class is defined outside Loopwright and torch."""
    return any(_package_of(module) not in ("loopwright", "torch") for module in model.modules())


def _with_names(listeners: Iterable[Callback]) -> list[tuple[str, Callback]]:
    return [(type(each).__name__, each) for each in listeners]


def _logged_by_shipped(listeners: Iterable[Callback], metric: str) -> bool:
    """Return whether a callback of this package can log ``metric``."""
    return any(is_shipped(each) and isinstance(each, LogsMetrics) and each.logs(metric) for each in listeners)


def _warn_or_refuse(setting: str, problem: str, listeners: Iterable[Callback]) -> str:
    """Refuse the setting, or return a warning if the user's callbacks or loops can log the metric."""
    own = [type(each).__name__ for each in listeners if not is_shipped(each) and not isinstance(each, Logger)]
    if not own:
        raise SettingError(setting, problem)
    return f"{setting}{problem} The metric is missing unless {' or '.join(dict.fromkeys(own))} logs it."


def _package_of(instance: object) -> str:
    return type(instance).__module__.partition(".")[0]
