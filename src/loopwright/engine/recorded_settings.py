"""Functions that collect and compare the settings of a run that are not in its plan, for checkpoints and resumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from loopwright.engine.parts import Parts
from loopwright.plan.compare import setting_change
from loopwright.protocols import DataFacts


def run_settings(parts: Parts) -> dict[str, object]:
    """Return the settings by name, as JSON scalars; None: unknown, or not set."""
    facts = DataFacts() if parts.data is None else parts.data.facts
    return {
        **{f"data.{name}": value for name, value in asdict(facts).items()},
        "optimizer": None if parts.optimizer is None else type(parts.optimizer).__name__,
        "device": parts.device.torch_device.type,
        "precision": parts.precision.dtype,
        **parts.strategy.recorded,
        "log_every_n_steps": parts.log_every_n_steps,
    }


def changed_device(parts: Parts, saved: Mapping[str, object]) -> list[str]:
    """Return a line that says how to resume on this device, if "auto" chose another type than the run was saved on."""
    here, there = parts.device.torch_device.type, saved.get("device")
    if not parts.has_auto_device or there in (None, here):
        return []
    return [f"{setting_change('device', there, here)}, which auto chose; with device={here!r} it resumes there"]


def settings_differences(saved: Mapping[str, object], own: Mapping[str, object]) -> list[str]:
    """List the settings that are known in both runs and differ, in lines such as ``data.batch_size: 34 -> 40``."""
    # Older checkpoints do not contain these settings.
    saved = {"precision": "float32", "device.compile": "null", "device.channels_last": False, **saved}
    return [
        setting_change(name, saved[name], value)
        for name, value in own.items()
        if value is not None and saved.get(name) not in (None, value)
    ]
