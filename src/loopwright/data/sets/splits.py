"""`Splits`, the training, validation and test dataloaders of a run, and recorded facts about the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loopwright.records import encoding_text


@dataclass(frozen=True, slots=True)
class Splits:
    """The training and validation dataloaders of a run.

    Attributes:
        train: training dataloader.
        val: validation dataloader, or a mapping of names to validation dataloaders; None: no validation.
        facts: properties of the data by name, such as the hash of a file; a run records them in ``summary.json``.
        encoding: how the samples were converted to tensors, as JSON values by name, which a run records as
            ``data.json``; None: no file. The entry ``target`` may contain ``name``, ``kind`` (category or number), the
            ``classes`` by label, and the ``unit`` of a number.
        test: dataloader, or a mapping of names to dataloaders, that no fit reads; the command ``loopwright validate DIR
            split=test`` validates on it. None: there is no test set.

    Raises:
        SettingError: if ``encoding`` contains a value that JSON cannot represent.
    """

    train: Any
    val: Any | Mapping[str, Any] | None = None
    facts: Mapping[str, str | int] = field(default_factory=dict)
    encoding: Mapping[str, Any] | None = None
    test: Any | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check that ``encoding`` can be represented in JSON."""
        if self.encoding is not None:
            encoding_text(self.encoding)
