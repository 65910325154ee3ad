"""`read_torch_weights`: the one door for files that ``torch.save`` wrote, which are pickles."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopwright.errors import CheckpointError, did_you_mean

_MAX_KEYS_SHOWN = 8
_WRAPPERS = ("module.", "_orig_mod.")


def read_torch_weights(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """The weights in a file of ``torch.save``, by plain names.

    The file is read by torch's restricted reader (``weights_only=True``), which knows tensors and plain containers; a
    file that holds anything else is refused, and never read in another way. Prefixes of wrappers, ``module.`` and
    ``_orig_mod.``, are taken off.

    Args:
        path: of torch's zip format, as since torch 1.6.
        key: where in the file the weights are, such as ``state_dict`` or ``ema.model``; None: they are the whole file,
            or its only entry that is a mapping of names to tensors.

    Raises:
        CheckpointError: if it is not such a file, or it is not clear where the weights are.
    """
    _check_zip(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  (of many kinds; whatever it is, the file is refused)
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        problem = f"cannot be read as tensors alone ({type(error).__name__}: {reason}); expected a state_dict."
        raise CheckpointError(f"{path}: {problem}") from None
    weights = _weights_at(content, key, path) if key else _only_weights_in(content, path)
    return {_plain(name): tensor.detach() for name, tensor in weights.items()}


def _check_zip(path: Path) -> None:
    """Refuse what is no zip file, and one that says it holds more than it does."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected one that torch.save wrote.")
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
    except (zipfile.BadZipFile, OSError):
        raise CheckpointError(f"{path}: expected a file that torch.save wrote, of its zip format.") from None
    is_compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if is_compressed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(f"{path}: holds compressed or overlapping entries; torch.save writes none.")


def _weights_at(content: Any, key: str, path: Path) -> Mapping[str, Tensor]:
    found = content
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            options = [str(name) for name in found] if isinstance(found, Mapping) else []
            hint = did_you_mean(part, options)
            raise CheckpointError(f"{path}: key={key}: has no {part}. Available: {_listed(options)}.{hint}")
        found = found[part]
    if not _is_weights(found):
        raise CheckpointError(f"{path}: key={key}: expected a mapping of names to tensors.")
    return dict(found)


def _only_weights_in(content: Any, path: Path) -> Mapping[str, Tensor]:
    if _is_weights(content):
        return dict(content)
    entries = content if isinstance(content, Mapping) else {}
    candidates = [name for name, value in entries.items() if isinstance(name, str) and _is_weights(value)]
    if len(candidates) == 1:
        return dict(entries[candidates[0]])
    found = (
        f"several: {_listed(candidates)}" if candidates else f"none among {_listed([str(name) for name in entries])}"
    )
    raise CheckpointError(f"{path}: expected one mapping of names to tensors, found {found}; name it with key=NAME.")


def _is_weights(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items())
    )


def _plain(name: str) -> str:
    for prefix in _WRAPPERS:
        name = name.removeprefix(prefix)
    return name.replace("._orig_mod.", ".")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_KEYS_SHOWN} more" if len(names) > _MAX_KEYS_SHOWN else ""
    return (", ".join(names[:_MAX_KEYS_SHOWN]) or "nothing") + more
