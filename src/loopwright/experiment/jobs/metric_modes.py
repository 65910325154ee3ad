"""`settle_modes`, which replaces each ``mode`` of a metric that is null in a configuration by ``min`` or ``max``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopwright.experiment.gate.tree import TARGET
from loopwright.plan import settle_mode

_MONITORING = (
    "loopwright.checkpoint.Checkpointing",
    "loopwright.callbacks.EarlyStopping",
    "torch.optim.lr_scheduler.ReduceLROnPlateau",
)


def settle_modes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a configuration in which ``objective_mode``, and the modes of monitored metrics, are settled.

    The mode of a metric that is the objective is ``objective_mode``. The mode of another metric follows from its name.

    Raises:
        SettingError: if a mode is null, and the name of its metric does not show which values are better.
    """
    objective = config.get("objective")
    if not isinstance(objective, str):
        return dict(config)  # refused later
    mode = settle_mode(config.get("objective_mode"), objective, "objective_mode")
    settled: dict[str, Any] = _settle({**config, "objective_mode": mode}, "", {objective: mode}, None)
    return settled


def _settle(node: Any, path: str, known: Mapping[str, str], monitor: Any) -> Any:
    """Return a copy of ``node`` with settled modes.

    Args:
        node: a value in the configuration.
        path: path of the value.
        known: mode of each metric whose mode is given.
        monitor: metric that the mapping around ``node`` monitors. A schedule is in a mapping with its ``monitor``.
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
