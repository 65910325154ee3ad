"""`read_torch_weights`: reads weights from files that ``torch.save`` wrote.

No other function of this package reads such files, which are pickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopwright.checkpoint.torch_archive import check_archive
from loopwright.errors import CheckpointError, did_you_mean, on_one_line

_MAX_KEYS_SHOWN = 8
# Largest number of bytes of all tensors, relative to the size of the file. A buffer may be an expanded number, and many
# layers may share one tensor.
_MAX_EXPANSION = 4
_MAX_SHARING = 100
_WRAPPERS = ("module.", "_orig_mod.")


def read_torch_weights(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Return the weights in a file that ``torch.save`` wrote, by name.

    The file is read with ``weights_only=True``, which accepts only tensors, numbers, strings and standard containers. A
    file with any other object is refused, and is never read without this restriction. The prefixes ``module.`` and
    ``_orig_mod.``, which wrappers such as DDP and `torch.compile` add, are removed from the names. ``_orig_mod.`` is
    also removed inside a name.

    Args:
        path: path of a file in torch's zip format, which is the default since torch 1.6.
        key: path of the weights in the nested dicts of the file: dict keys joined by dots, such as ``state_dict`` or
            ``ema.model``. None: the weights are the whole content of the file, or the only top-level entry that is a
            mapping of names to tensors.

    Raises:
        CheckpointError: if the file has another format or contains other objects; if ``key`` does not lead to weights;
            or, without ``key``, if no value or more than one value could be the weights. Also if the tensors have far
            more bytes than the file.
    """
    check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  (torch raises many types here; the file is refused for each)
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        problem = f"cannot be read with weights_only=True ({type(error).__name__}: {reason}); expected a state_dict."
        raise CheckpointError(f"{path}: {problem}") from None
    weights = _weights_at(content, key, path) if key else _only_weights_in(content, path)
    _check_sizes(weights, path)
    return {_plain(name): tensor.detach() for name, tensor in weights.items()}


def _check_sizes(weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that have far more bytes than the file, because they are views of few numbers."""
    for name, tensor in weights.items():
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            kind = f"{str(tensor.layout).removeprefix('torch.')} tensor on {tensor.device.type}"
            raise CheckpointError(f"{path}: {on_one_line(name, 80)} is a {kind}; expected dense tensors on the CPU.")
    views = {(each.data_ptr(), each.dtype, each.shape, each.stride()): each.nbytes for each in weights.values()}
    num_bytes, num_shared = sum(views.values()), sum(each.nbytes for each in weights.values())
    size = path.stat().st_size
    if num_bytes > _MAX_EXPANSION * size or num_shared > _MAX_SHARING * size:
        problem = f"its tensors have {max(num_bytes, num_shared):,} bytes, but the file has {size:,}"
        raise CheckpointError(f"{path}: {problem}; expected tensors that are not views of a few numbers.")


def _weights_at(content: Any, key: str, path: Path) -> Mapping[str, Tensor]:
    found = content
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            options = [str(name) for name in found] if isinstance(found, Mapping) else []
            hint = did_you_mean(part, options)
            raise CheckpointError(
                f"{path}: key={key}: found no entry named {part}. Available: {_listed(options)}.{hint}"
            )
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
    if candidates:
        problem = f"found several mappings of names to tensors: {_listed(candidates)}; choose one with key=NAME"
    else:
        listed = _listed([str(name) for name in entries])
        problem = f"found no mapping of names to tensors. Available: {listed}; name a nested mapping with key=NAME.NAME"
    raise CheckpointError(f"{path}: {problem}.")


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
