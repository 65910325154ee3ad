"""`name_dataloaders`, which gives each validation dataloader a name. The name is the prefix of the metric names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from loopwright.errors import SettingError, refuse, refuse_type


def name_dataloaders(val_dataloader: Any, root: str = "val") -> dict[str, Any]:
    """Return a mapping from names to validation dataloaders.

    - A single dataloader, a list of one dataloader, and a list of batches have the name ``val``.
    - The dataloaders in a longer list have the names ``val/0``, ``val/1`` and so on.
    - The dataloaders in a mapping have the names ``val/<key>``. The name for the key ``val`` is ``val``.

    A list is a list of batches if its entries are tensors, mappings, tuples with tensors, or lists that contain tensors
    and other values.

    Args:
        val_dataloader: a dataloader, or a list or a mapping of dataloaders; None: no dataloaders.
        root: prefix that is used instead of ``val``.

    Raises:
        SettingError: if a list contains batches and dataloaders, if a key of a mapping is invalid, or if an entry of a
            list may be a batch or a dataloader, because it is a list of tensors or contains such lists.
    """
    if val_dataloader is None:
        return {}
    if isinstance(val_dataloader, Mapping):
        for name in val_dataloader:
            if not isinstance(name, str) or not name or name != name.strip():
                raise refuse("val_dataloader", name, "names that are strings without spaces at their ends")
        return {root if name == "val" else f"{root}/{name}": loader for name, loader in val_dataloader.items()}
    if not isinstance(val_dataloader, list | tuple):
        return {root: val_dataloader}
    if any(map(_is_ambiguous, val_dataloader)):
        problem = "contains lists of tensors, which may be batches or validation sets; expected a mapping"
        remedy = "{'val': batches} for one list of batches, or {'a': batches, 'b': other_batches} for several sets"
        raise SettingError("val_dataloader", f": {problem}. Use {remedy}.")
    batches = [entry for entry in val_dataloader if _is_batch(entry)]
    if batches and len(batches) < len(val_dataloader):
        raise refuse_type("val_dataloader", batches[0], "a list of dataloaders, or a list of batches")
    if batches:
        return {root: val_dataloader}
    if len(val_dataloader) == 1:
        return {root: val_dataloader[0]}
    return {f"{root}/{index}": dataloader for index, dataloader in enumerate(val_dataloader)}


def _is_batch(entry: Any) -> bool:
    return isinstance(entry, Tensor | Mapping) or (
        isinstance(entry, tuple | list) and any(isinstance(p, Tensor) for p in entry)
    )


def _is_ambiguous(entry: Any) -> bool:
    """Return whether an entry is a list of tensors, or contains lists of tensors and no tensor.

    Such an entry can be a list of batches. It can also be one batch: a batch of images of different sizes contains a
    list of tensors.
    """
    if _is_list_of_tensors(entry):
        return True
    return isinstance(entry, list | tuple) and not _is_batch(entry) and any(map(_is_list_of_tensors, entry))


def _is_list_of_tensors(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, Tensor) for part in value)
