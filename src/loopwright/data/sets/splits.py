"""`Splits`, which contains the dataloaders of a data configuration and properties of the data."""

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
        facts: properties of the data by name, such as the hash of a file; ``summary.json`` records these properties.
    """

    train: Any
    val: Any | Mapping[str, Any] | None = None
    facts: Mapping[str, str | int] = field(default_factory=dict)
