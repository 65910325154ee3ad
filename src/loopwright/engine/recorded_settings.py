"""Functions that collect the settings outside the plan for a checkpoint, and compare these settings at a resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from loopwright.engine.parts import Parts
from loopwright.plan.compare import setting_change
from loopwright.protocols import DataFacts


def run_settings(parts: Parts) -> dict[str, object]:
    """Return the settings of a run by name, as JSON scalars. A setting that is unknown or not set is None."""
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
    """Return a line about a changed device type, if "auto" chose the device of this run; otherwise no line.

    The line says which ``device`` to set, so that the checkpoint resumes on the device of this run.
    """
    here, there = parts.device.torch_device.type, saved.get("device")
    if not parts.has_auto_device or there in (None, here):
        return []
    return [f"{setting_change('device', there, here)}, which auto chose; with device={here!r} it resumes there"]


def settings_differences(saved: Mapping[str, object], own: Mapping[str, object]) -> list[str]:
    """Return a line such as ``data.batch_size: 34 -> 40`` for each setting that differs. Ignore unknown settings."""
    # Values of settings that older checkpoints do not contain.
    saved = {"precision": "float32", "device.compile": "null", "device.channels_last": False, **saved}
    return [
        setting_change(name, saved[name], value)
        for name, value in own.items()
        if value is not None and saved.get(name) not in (None, value)
    ]
