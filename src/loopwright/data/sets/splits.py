"""`Splits`: the dataloaders that a data configuration makes, and facts about the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Splits:
    """The training and validation dataloaders of a run.

    Attributes:
        train: training dataloader.
        val: validation dataloader, or a mapping of names to validation dataloaders; None: no validation.
        facts: facts about the data that ``summary.json`` records, such as the hash of a text.
    """

    train: Any
    val: Any | Mapping[str, Any] | None = None
    facts: Mapping[str, str | int] = field(default_factory=dict)
