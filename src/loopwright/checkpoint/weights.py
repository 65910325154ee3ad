"""Weights by plain names: as the unwrapped model calls them, whatever compiled or distributed it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from loopwright.checkpoint.safetensors_layout import tensor_bytes
from loopwright.errors import CheckpointError, nearest

_MAX_NAMES_SHOWN = 5


def plain_names(model: nn.Module) -> dict[str, Any]:
    """The model's state by plain names: tensors, sharing memory with the model, and what modules add of their own.

    What `torch.compile`, `DataParallel` and `DistributedDataParallel` put into names is taken out; a module of the
    user's own that is called ``module`` keeps its name.
    """
    wrappers = _wrappers(model)
    return {_plain(name, wrappers): tensor for name, tensor in model.state_dict().items()}


def plain_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters by plain names, those of `plain_names`; a tied one under each of its names."""
    wrappers = _wrappers(model)
    return {_plain(name, wrappers): each for name, each in model.named_parameters(remove_duplicate=False)}


def load_weights(model: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Copy weights into a model; every name, shape and type must fit, or nothing is changed.

    Args:
        model: may be wrapped otherwise than it was when the weights were saved.
        tensors: by plain names, as from `plain_names` or a checkpoint.

    Raises:
        CheckpointError: listing missing and unexpected names, each with its shape and the nearest name, and shapes
            or types that differ.
    """
    wrappers = _wrappers(model)
    actual = {_plain(name, wrappers): name for name in model.state_dict()}
    own = plain_names(model)
    faults = _name_faults(own, tensors)
    for name in own.keys() & tensors.keys():
        if _describe(own[name]) != _describe(tensors[name]):
            faults.append(f"{name}: the model has {_describe(own[name])}, the checkpoint {_describe(tensors[name])}")
    faults += _tie_faults(own, tensors) if not faults else []
    if faults:
        raise CheckpointError(f"the checkpoint does not fit the model: {'; '.join(sorted(faults))}.")
    try:
        model.load_state_dict({actual[name]: tensor for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit the model: {' '.join(str(error).split())}") from error


def weights_digest(model_tensors: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) over all tensors in the order of their names: names, types, shapes and bytes."""
    hasher = hashlib.sha256()
    for name in sorted(model_tensors):
        if not isinstance(model_tensors[name], Tensor):  # a module's extra state: no weight
            continue
        tensor = model_tensors[name].detach().resolve_conj().resolve_neg().cpu().contiguous()
        hasher.update(f"{len(name.encode())}:{name}:{tensor.dtype}:{list(tensor.shape)}:".encode())
        hasher.update(tensor_bytes(tensor))
    return hasher.hexdigest()


def _wrappers(model: nn.Module) -> list[str]:
    """Prefixes, longest first, whose last word was put there by a wrapper."""
    prefixes = []
    for name, module in model.named_modules(remove_duplicate=False):
        start = f"{name}." if name else ""
        if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            prefixes.append(f"{start}module.")
        elif "_orig_mod" in module._modules:  # by name: importing torch._dynamo for its class costs a second
            prefixes.append(f"{start}_orig_mod.")
    return sorted(prefixes, key=len, reverse=True)


def _plain(name: str, wrappers: list[str]) -> str:
    for prefix in wrappers:
        if name.startswith(prefix):
            outer = prefix[:-1].rpartition(".")[0]
            name = (f"{outer}." if outer else "") + name[len(prefix) :]
    return name


def _name_faults(own: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    faults = []
    for title, names, others in (
        ("missing", own.keys() - given.keys(), given.keys() - own.keys()),
        ("unexpected", given.keys() - own.keys(), own.keys() - given.keys()),
    ):
        tensors = own if title == "missing" else given
        shown = [f"{name} {_describe(tensors[name])}{_near(name, others)}" for name in sorted(names)[:_MAX_NAMES_SHOWN]]
        if len(names) > _MAX_NAMES_SHOWN:
            shown.append(f"and {len(names) - _MAX_NAMES_SHOWN} more")
        if shown:
            faults.append(f"{title} {', '.join(shown)}")
    return faults


def _near(name: str, others: set[str]) -> str:
    match = nearest(name, sorted(others))
    return f" (nearest: {match})" if match else ""


def _tie_faults(own: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Names that are one tensor in the model but differ in the checkpoint: one would silently overwrite the other."""
    first: dict[tuple[Any, ...], str] = {}
    faults = []
    for name, tensor in own.items():
        if not isinstance(tensor, Tensor) or not tensor.numel():
            continue
        view = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        other = first.setdefault(view, name)
        if given[name] is not given[other] and not torch.equal(given[name], given[other]):
            faults.append(f"{other} and {name} are one tensor in the model and two in the checkpoint")
    return faults


def _describe(tensor: object) -> str:
    """Shape and type of one entry, such as ``10x64 float32``."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{'x'.join(map(str, tensor.shape)) or 'scalar'} {str(tensor.dtype).removeprefix('torch.')}"
