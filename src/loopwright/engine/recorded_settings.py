"""What a run is made of beside its plan, as far as it is known: saved, and compared when the run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from loopwright.engine.parts import Parts
from loopwright.errors import on_one_line
from loopwright.protocols import DataFacts


def run_settings(parts: Parts) -> dict[str, object]:
    """The settings by name, as JSON scalars; None: unknown, or none."""
    facts = DataFacts() if parts.data is None else parts.data.facts
    return {
        **{f"data.{name}": value for name, value in asdict(facts).items()},
        "optimizer": None if parts.optimizer is None else type(parts.optimizer).__name__,
        "log_every_n_steps": parts.log_every_n_steps,
    }


def settings_differences(saved: Mapping[str, object], own: Mapping[str, object]) -> list[str]:
    """Where two runs are known to differ, a line each, such as ``data.batch_size: 34 -> 40``."""
    pairs = [(name, saved.get(name), value) for name, value in own.items()]
    return [
        f"{name}: {_show(before)} -> {_show(now)}"
        for name, before, now in pairs
        if before is not None and now is not None and before != now
    ]


def _show(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else on_one_line(str(value), 80)
