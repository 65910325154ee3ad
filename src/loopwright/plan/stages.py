"""The stages of a plan: `Train`, `Save`, `Validate` and `Downstream`.

A downstream validation is a validation that a callback runs in its hook ``run_validation``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Train:
    """Train from ``global_step`` equal to ``start`` until ``global_step`` equals ``stop``."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Save:
    """Save a checkpoint at the end of ``step``."""

    step: int


@dataclass(frozen=True, slots=True)
class Validate:
    """Validate the first ``num_batches`` batches of the dataloader ``name`` at the end of ``step``."""

    step: int
    name: str
    num_batches: int


@dataclass(frozen=True, slots=True)
class Downstream:
    """Run the downstream validation ``name`` at the end of ``step``, after the validation dataloaders."""

    step: int
    name: str


Stage = Train | Save | Validate | Downstream
