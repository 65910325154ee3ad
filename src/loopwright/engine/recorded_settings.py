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
        "log_every_n_steps": parts.log_every_n_steps,
    }


def settings_differences(saved: Mapping[str, object], own: Mapping[str, object]) -> list[str]:
    """List the settings that are known in both runs and differ, in lines such as ``data.batch_size: 34 -> 40``."""
    return [
        setting_change(name, saved[name], value)
        for name, value in own.items()
        if value is not None and saved.get(name) not in (None, value)
    ]
