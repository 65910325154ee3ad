"""Functions that replace each null mode of a metric in a configuration by ``min`` or ``max``.

In mode ``min``, smaller values of the metric are better. In mode ``max``, larger values are better.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from loopwright.errors import SettingError
from loopwright.experiment.gate.tree import TARGET
from loopwright.plan import settle_mode

_MONITORING = (
    "loopwright.checkpoint.Checkpointing",
    "loopwright.callbacks.EarlyStopping",
    "torch.optim.lr_scheduler.ReduceLROnPlateau",
)


def settle_modes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a configuration in which ``objective_mode`` and the modes of monitored metrics are not null.

    A null mode becomes ``objective_mode`` if its metric is the objective. Otherwise, the name of the metric determines
    the mode.

    Raises:
        SettingError: for an invalid mode, and for a null mode of a metric whose name does not show which values are
            better.
    """
    objective = config.get("objective")
    if not isinstance(objective, str):
        return dict(config)  # `JobSettings` refuses this objective
    mode = settle_mode(config.get("objective_mode"), objective, "objective_mode")
    settled: dict[str, Any] = _settle({**config, "objective_mode": mode}, "", {objective: mode}, None)
    return settled


def settle_changed_modes(
    config: Mapping[str, Any], recorded: Mapping[str, Any], typed: Container[str]
) -> dict[str, Any]:
    """Return a copy of the configuration of a resumed run, with modes for metrics that overrides may have changed.

    If the recorded checkpoints monitored the objective with ``objective_mode``, the new objective and its mode replace
    ``checkpoint.monitor`` and ``checkpoint.mode``. Typed values are never replaced.

    Otherwise, ``objective_mode`` and ``checkpoint.mode`` are kept if their metric is unchanged. A mode is also kept if
    neither the recorded nor the new name of its metric shows which values are better. In all other cases, the mode is
    chosen as in a new run. Recorded modes of callbacks and schedulers are always kept.

    Args:
        config: recorded configuration with the overrides applied.
        recorded: recorded configuration.
        typed: names of the settings that the overrides set.

    Raises:
        SettingError: for an invalid mode, and for a mode that must be chosen for a metric whose name does not show
            which values are better.
    """
    old, old_mode, new = recorded.get("objective"), recorded.get("objective_mode"), config.get("objective")
    changed = dict(config)
    if "objective_mode" not in typed:
        changed["objective_mode"] = _kept_mode(old_mode, old, new)
    checkpoint, before = config.get("checkpoint"), recorded.get("checkpoint")
    if isinstance(checkpoint, dict) and isinstance(before, dict):
        checkpoint = changed["checkpoint"] = dict(checkpoint)
        monitor, mode = before.get("monitor"), before.get("mode")
        is_objective = (monitor, mode) == (old, old_mode) and "checkpoint.monitor" not in typed
        if is_objective and "monitor" in checkpoint:
            checkpoint["monitor"] = new
        if "checkpoint.mode" not in typed and "mode" in checkpoint:
            checkpoint["mode"] = None if is_objective else _kept_mode(mode, monitor, checkpoint.get("monitor"))
    return settle_modes(changed)


def _kept_mode(mode: object, old: object, new: object) -> object:
    """Return the recorded mode if it also applies to the new metric, otherwise None.

    Args:
        mode: recorded mode.
        old: name of the recorded metric.
        new: name of the new metric.
    """
    is_kept = old == new or not (_shows_mode(old) or _shows_mode(new))
    return mode if is_kept else None


def _shows_mode(metric: object) -> bool:
    """Return whether the name of a metric shows which values are better."""
    try:
        settle_mode(None, metric if isinstance(metric, str) else None)
    except SettingError:
        return False
    return True


def _settle(node: Any, path: str, known: Mapping[str, str], monitor: Any) -> Any:
    """Return a copy of ``node`` in which the modes of monitored metrics are not null.

    Args:
        node: a value in the configuration.
        path: path of the value.
        known: the mode of the objective, by the name of the objective.
        monitor: setting ``monitor`` of the mapping that contains ``node``, or None. The section of a scheduler has its
            metric in this mapping, next to ``scheduler``.
    """
    if isinstance(node, list):
        return [_settle(each, f"{path}.{index}", known, None) for index, each in enumerate(node)]
    if not isinstance(node, dict):
        return node
    monitor = node.get("monitor", monitor)
    prefix = f"{path}." if path else ""
    copied = {name: _settle(each, f"{prefix}{name}", known, monitor) for name, each in node.items()}
    if node.get(TARGET) in _MONITORING and "mode" in node and isinstance(monitor, str | None):
        mode = known.get(monitor) if node["mode"] is None and monitor is not None else None
        copied["mode"] = mode or settle_mode(node["mode"], monitor, f"{prefix}mode")
    return copied
