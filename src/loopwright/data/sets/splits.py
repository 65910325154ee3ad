"""`Splits`: the dataloaders that a data configuration makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Splits:
    """What a run trains on and what it is validated on.

    Attributes:
        train: the training dataloader.
        val: a validation dataloader, a mapping of several by name, or None: no validation.
        facts: what a run's ``summary.json`` records of its data, such as the hash of a text.
    """

    train: Any
    val: Any | Mapping[str, Any] | None = None
    facts: Mapping[str, str | int] = field(default_factory=dict)
