"""Weights by plain names: the names in the unwrapped model, without prefixes of `torch.compile`, DDP and the like."""

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
_MAX_COMPARED = 2000  # names that are compared to find the nearest; more would take too long


def plain_names(model: nn.Module) -> dict[str, Any]:
    """Return the model's state by plain names: tensors that share memory with the model, and modules' extra state.

    Prefixes of `torch.compile`, `DataParallel` and `DistributedDataParallel` are removed from the names. A submodule
    that the user has named ``module`` keeps its name.
    """
    wrappers = _wrappers(model)
    return {_plain(name, wrappers): tensor for name, tensor in model.state_dict().items()}


def plain_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the model's parameters by the names of `plain_names`; a tied parameter appears under all its names."""
    wrappers = _wrappers(model)
    return {_plain(name, wrappers): each for name, each in model.named_parameters(remove_duplicate=False)}


def unsaved_buffers(model: nn.Module) -> dict[str, Tensor | None]:
    """Return the non-persistent buffers, which `plain_names` leaves out, by plain names; they are not copied."""
    return {name: module._buffers[key] for name, (module, key) in _unsaved_places(model).items()}


def parameter_names(model: nn.Module, optimizer: Optimizer | None) -> list[list[str]]:
    """Return the plain names of an optimizer's parameters by group; a tied parameter has its first name."""
    names = {id(parameter): name for name, parameter in reversed(plain_parameters(model).items())}
    groups = [] if optimizer is None else optimizer.param_groups
    return [[names.get(id(parameter), "not the model's") for parameter in group["params"]] for group in groups]


def refuse_lazy(model: nn.Module) -> None:
    """Refuse a model with lazy layers that have not seen a batch: weights cannot be loaded into them yet.

    Raises:
        CheckpointError: if there are such layers; it names their parameters and buffers.
    """
    entries = {**plain_names(model), **unsaved_buffers(model)}
    names = [_cut(name) for name, entry in entries.items() if isinstance(entry, Tensor) and is_lazy(entry)]
    if names:
        shown = ", ".join([*names[:_MAX_SHOWN], *_rest(names)])
        raise CheckpointError(
            f"the model has lazy layers, so these have no shape yet: {shown}; expected layers of fixed sizes, or a "
            "model that calls its lazy layers once in its constructor."
        )


def load_weights(
    model: nn.Module, tensors: Mapping[str, Any], buffers: Mapping[str, Tensor | None] | None = None
) -> list[str]:
    """Copy weights into a model. If a name, shape or dtype does not match, the model is not changed.

    Args:
        model: target model; its wrappers may differ from the wrappers of the model whose weights were saved.
        tensors: weights by plain names, as from `plain_names` or a checkpoint.
        buffers: non-persistent buffers, as from `unsaved_buffers`; None: no buffers are loaded. A buffer of another
            shape or dtype replaces the buffer in the model, because caches grow after they are registered.

    Returns:
        A line for each entry of ``buffers`` whose shape or dtype differs from the model's.

    Raises:
        CheckpointError: if the weights do not fit. It lists missing and unexpected names, each with its shape and the
            nearest name, and entries whose shape or dtype differs.
    """
    wrappers = _wrappers(model)
    actual = {_plain(name, wrappers): name for name in model.state_dict()}
    own = plain_names(model)
    faults = _name_faults(own, tensors) + _shape_faults(own, tensors) or _sharing_faults(own, tensors)
    faults += [] if buffers is None else _name_faults(unsaved_buffers(model), buffers, "non-persistent buffers")
    if faults:
        raise CheckpointError(f"the checkpoint does not fit the model: {'; '.join(faults)}.")
    try:
        model.load_state_dict({actual[name]: tensor for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit the model: {on_one_line(str(error), 500)}") from error
    return [] if buffers is None else _load_buffers(model, buffers)


def weights_digest(model_tensors: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hexadecimal) of the names, dtypes, shapes and bytes of all tensors, sorted by name."""
    hasher = hashlib.sha256()
    for name in sorted(model_tensors):
        if not isinstance(model_tensors[name], Tensor):  # the extra state of a module
            continue
        tensor = model_tensors[name].detach().resolve_conj().resolve_neg().cpu().contiguous()
        hasher.update(f"{len(name.encode())}:{name}:{tensor.dtype}:{list(tensor.shape)}:".encode())
        hasher.update(tensor_bytes(tensor))
    return hasher.hexdigest()


def _wrappers(model: nn.Module) -> list[str]:
    """Return the name prefixes whose last component a wrapper has inserted, longest first."""
    prefixes = []
    for name, module in model.named_modules(remove_duplicate=False):
        start = f"{name}." if name else ""
        if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            prefixes.append(f"{start}module.")
        elif "_orig_mod" in module._modules:  # by name: importing torch._dynamo for its class takes 1 s
            prefixes.append(f"{start}_orig_mod.")
    return sorted(prefixes, key=len, reverse=True)


def _plain(name: str, wrappers: list[str]) -> str:
    for prefix in wrappers:
        if name.startswith(prefix):
            outer = prefix[:-1].rpartition(".")[0]
            name = (f"{outer}." if outer else "") + name[len(prefix) :]
    return name


def _unsaved_places(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return the owner of each non-persistent buffer, as (module, name in that module), by plain name."""
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
    """Describe names that share memory in the model (tied or views), but have conflicting values in ``given``."""
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
    """Return a view of ``memory`` with the dtype, offset, shape and strides of ``tensor``."""
    view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return view.set_(memory, tensor.storage_offset(), tensor.shape, tensor.stride())


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same bits; bytes are compared, because NaN is not equal to itself."""
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
    """Return the shape and dtype of an entry, such as ``10x64 float32``."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{'x'.join(map(str, tensor.shape)) or 'scalar'} {str(tensor.dtype).removeprefix('torch.')}"
