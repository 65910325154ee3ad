"""`name_dataloaders`, which gives each validation dataloader a name. The name is the prefix of its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from loopwright.errors import refuse, refuse_type


def name_dataloaders(val_dataloader: Any, root: str = "val") -> dict[str, Any]:
    """Return each validation dataloader by name: ``val`` if single, ``val/0`` in a list, ``val/<name>`` in a mapping.

    Args:
        val_dataloader: validation dataloaders as the user gave them.
        root: prefix that is used instead of ``val``.

    Raises:
        SettingError: if a list contains batches instead of dataloaders, or if a name in a mapping is invalid.
    """
    if val_dataloader is None:
        return {}
    if isinstance(val_dataloader, Mapping):
        for name in val_dataloader:
            if not isinstance(name, str) or not name or name != name.strip():
                raise refuse("val_dataloader", name, "names that are strings without spaces at their ends")
        return {f"{root}/{name}": dataloader for name, dataloader in val_dataloader.items()}
    if isinstance(val_dataloader, list | tuple):
        for entry in val_dataloader:
            if _is_batch(entry):
                remedy = "wrap a list of batches in another list"
                raise refuse_type("val_dataloader", entry, "a list of dataloaders", remedy)
        return {f"{root}/{index}": dataloader for index, dataloader in enumerate(val_dataloader)}
    return {root: val_dataloader}


def _is_batch(entry: Any) -> bool:
    if isinstance(entry, Mapping):
        return any(isinstance(value, Tensor) for value in entry.values())
    return isinstance(entry, Tensor) or (isinstance(entry, tuple) and any(isinstance(part, Tensor) for part in entry))
