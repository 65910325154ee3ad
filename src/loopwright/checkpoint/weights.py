"""Weights by plain names: as the unwrapped model calls them, whatever compiled or distributed it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from loopwright.checkpoint.safetensors_layout import tensor_bytes
from loopwright.errors import CheckpointError, nearest, on_one_line

_MAX_SHOWN = 5
_MAX_NAME = 80  # characters of a name that are shown
_MAX_COMPARED = 2000  # names among which the nearest is looked for, as that takes the longer the more there are


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


def unsaved_buffers(model: nn.Module) -> dict[str, Tensor | None]:
    """The buffers that `plain_names` leaves out, as they are not persistent; by plain names, not copied."""
    return {name: module._buffers[key] for name, (module, key) in _unsaved_places(model).items()}


def parameter_names(model: nn.Module, optimizer: Optimizer | None) -> list[list[str]]:
    """The plain names of an optimizer's parameters, group by group; of a tied one the first."""
    names = {id(parameter): name for name, parameter in reversed(plain_parameters(model).items())}
    groups = [] if optimizer is None else optimizer.param_groups
    return [[names.get(id(parameter), "not the model's") for parameter in group["params"]] for group in groups]


def refuse_lazy(model: nn.Module) -> None:
    """Refuse a model that cannot take weights yet.

    Raises:
        CheckpointError: naming parameters and buffers whose shapes a first batch is to decide.
    """
    entries = {**plain_names(model), **unsaved_buffers(model)}
    names = [_cut(name) for name, entry in entries.items() if isinstance(entry, Tensor) and is_lazy(entry)]
    if names:
        shown = ", ".join([*names[:_MAX_SHOWN], *_rest(names)])
        raise CheckpointError(
            f"the model has lazy layers, and so no shapes yet for {shown}; expected layers of given sizes, or a model "
            "that calls them once when it is made."
        )


def load_weights(
    model: nn.Module, tensors: Mapping[str, Any], buffers: Mapping[str, Tensor | None] | None = None
) -> list[str]:
    """Copy weights into a model; every name, shape and type must fit, or nothing is changed.

    Args:
        model: may be wrapped otherwise than it was when the weights were saved.
        tensors: by plain names, as from `plain_names` or a checkpoint.
        buffers: as from `unsaved_buffers`; None: these stay as they are. One that has grown since it was registered,
            as a cache does, replaces the one in the model.

    Returns:
        A line for each of ``buffers`` that has another shape or type in the model.

    Raises:
        CheckpointError: listing missing and unexpected names, each with its shape and the nearest name, and shapes
            or types that differ.
    """
    wrappers = _wrappers(model)
    actual = {_plain(name, wrappers): name for name in model.state_dict()}
    own = plain_names(model)
    faults = _name_faults(own, tensors) + _shape_faults(own, tensors) or _sharing_faults(own, tensors)
    faults += (
        [] if buffers is None else _name_faults(unsaved_buffers(model), buffers, "buffers that are not persistent")
    )
    if faults:
        raise CheckpointError(f"the checkpoint does not fit the model: {'; '.join(faults)}.")
    try:
        model.load_state_dict({actual[name]: tensor for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit the model: {on_one_line(str(error), 500)}") from error
    return [] if buffers is None else _load_buffers(model, buffers)


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


def _unsaved_places(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Where each buffer that is not persistent is: (module, its name there), by plain name."""
    wrappers = _wrappers(model)
    return {
        _plain(f"{prefix}.{key}" if prefix else key, wrappers): (module, key)
        for prefix, module in model.named_modules(remove_duplicate=False)
        for key in module._buffers
        if key in module._non_persistent_buffers_set
    }


def _load_buffers(model: nn.Module, buffers: Mapping[str, Tensor | None]) -> list[str]:
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)
    notes = []
    for name, (module, key) in _unsaved_places(model).items():
        mine, given = module._buffers[key], buffers[name]
        if mine is not None and given is not None and _describe(mine) == _describe(given):
            mine.detach().copy_(given)
            continue
        module._buffers[key] = None if given is None else given.to(device if mine is None else mine.device, copy=True)
        if mine is not None and given is not None:
            notes.append(_difference(name, mine, given))
    return notes


def _name_faults(own: Mapping[str, Any], given: Mapping[str, Any], what: str = "") -> list[str]:
    faults = []
    for title, names, others in (
        ("missing", own.keys() - given.keys(), given.keys() - own.keys()),
        ("unexpected", given.keys() - own.keys(), own.keys() - given.keys()),
    ):
        tensors = own if title == "missing" else given
        shown = [f"{_cut(name)} {_describe(tensors[name])}{_near(name, others)}" for name in sorted(names)[:_MAX_SHOWN]]
        if names:
            faults.append(f"{title} {what}{': ' if what else ''}{', '.join([*shown, *_rest(names)])}")
    return faults


def _shape_faults(own: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    names = sorted(name for name in own.keys() & given.keys() if _describe(own[name]) != _describe(given[name]))
    return [*(_difference(name, own[name], given[name]) for name in names[:_MAX_SHOWN]), *_rest(names)]


def _sharing_faults(own: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Names that share memory in the model, tied or views of each other, and would overwrite each other's values."""
    names_at: dict[tuple[Any, int], list[str]] = {}
    for name, tensor in own.items():
        if isinstance(tensor, Tensor) and tensor.numel() and not (tensor.is_conj() or tensor.is_neg()):
            names_at.setdefault((tensor.device, tensor.untyped_storage().data_ptr()), []).append(name)
    faults = []
    for names in (names for names in names_at.values() if len(names) > 1):
        memory = own[names[0]].untyped_storage().clone()
        views = {name: _view_like(own[name], memory) for name in names}
        for name in names:
            views[name].copy_(given[name])
        changed = [name for name in names if not _is_same(views[name], given[name])]
        if changed:
            faults.append(
                f"{_cut(changed[0])} and {_cut(names[-1])} share memory in the model, but not in the checkpoint"
            )
    return [*faults[:_MAX_SHOWN], *_rest(faults)]


def _view_like(tensor: Tensor, memory: torch.UntypedStorage) -> Tensor:
    """What ``tensor`` would be if its memory were this."""
    view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return view.set_(memory, tensor.storage_offset(), tensor.shape, tensor.stride())


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same bits, NaN included; what was written over shows in any of them."""
    return torch.equal(*(tensor.cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (a, b)))


def _difference(name: str, mine: object, given: object) -> str:
    return f"{_cut(name)}: the model has {_describe(mine)}, the checkpoint {_describe(given)}"


def _rest(names: Collection[str]) -> list[str]:
    return [f"and {len(names) - _MAX_SHOWN} more"] if len(names) > _MAX_SHOWN else []


def _near(name: str, others: set[str]) -> str:
    match = nearest(name[:_MAX_NAME], [other[:_MAX_NAME] for other in sorted(others)[:_MAX_COMPARED]])
    return f" (nearest: {_cut(match)})" if match else ""


def _cut(text: str) -> str:
    return on_one_line(text, _MAX_NAME)


def _describe(tensor: object) -> str:
    """Shape and type of one entry, such as ``10x64 float32``."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{'x'.join(map(str, tensor.shape)) or 'scalar'} {str(tensor.dtype).removeprefix('torch.')}"
