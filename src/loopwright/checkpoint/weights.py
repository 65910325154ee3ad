"""Functions that return, check and load the weights of a model by plain names.

A plain name is the name in the model without the prefixes that `torch.compile` and wrappers such as DDP add.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from loopwright.checkpoint.safetensors_layout import tensor_bytes
from loopwright.errors import CheckpointError, nearest, on_one_line
from loopwright.sharded_tensors import own_rows

_MAX_SHOWN = 5
_MAX_NAME = 80  # largest number of characters of a name in a message
_MAX_COMPARED = 2000  # largest number of names that are searched for the nearest name


def plain_names(model: nn.Module) -> dict[str, Any]:
    """Return the state of a model by plain names: its tensors, not copied, and the extra state of its modules.

    The prefixes that `torch.compile`, `DataParallel` and `DistributedDataParallel` add are removed. A user's
    module that is named ``module`` keeps its name.
    """
    wrappers = _wrappers(model)
    return {_plain(name, wrappers): tensor for name, tensor in model.state_dict().items()}


def plain_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a model by plain names. A tied parameter has an entry for each of its names."""
    wrappers = _wrappers(model)
    return {_plain(name, wrappers): each for name, each in model.named_parameters(remove_duplicate=False)}


def unsaved_buffers(model: nn.Module) -> dict[str, Tensor | None]:
    """Return the non-persistent buffers by plain names, not copied. `plain_names` does not return these buffers."""
    return {name: module._buffers[key] for name, (module, key) in _unsaved_places(model).items()}


def parameter_names(model: nn.Module, optimizer: Optimizer | None) -> list[list[str]]:
    """Return the plain names of an optimizer's parameters for each group; for a tied parameter, its first name."""
    names = {id(parameter): name for name, parameter in reversed(plain_parameters(model).items())}
    groups = [] if optimizer is None else optimizer.param_groups
    return [[names.get(id(parameter), "not in the model") for parameter in group["params"]] for group in groups]


def refuse_lazy(model: nn.Module) -> None:
    """Raise an error if the model has lazy layers whose parameters or buffers have no shape yet.

    Raises:
        CheckpointError: with the names of the parameters and buffers that have no shape.
    """
    entries = {**plain_names(model), **unsaved_buffers(model)}
    names = [name for name, entry in entries.items() if isinstance(entry, Tensor) and is_lazy(entry)]
    if names:
        raise CheckpointError(
            f"the model has lazy layers, so these tensors have no shape yet: {', '.join(_first(names, _cut))}; "
            "expected layers of fixed sizes, or a model that calls its lazy layers once in its constructor."
        )


def check_weights(model: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Refuse weights whose names, shapes or dtypes differ from the model.

    Args:
        model: model that the weights are for. Its wrappers may differ from the wrappers of the saved model.
        tensors: weights by plain names, from `plain_names` or a checkpoint.

    Raises:
        CheckpointError: if the weights differ. The message lists the missing and unexpected names, each with shape,
            dtype and the nearest name, and the names whose shape or dtype differs.
    """
    _refuse(_differences(plain_names(model), tensors))


def load_weights(
    model: nn.Module, tensors: Mapping[str, Any], buffers: Mapping[str, Tensor | None] | None = None
) -> list[str]:
    """Copy weights into a model. If the weights are incompatible with the model, the model is not changed.

    Args:
        model: model into which the weights are copied, with any wrappers.
        tensors: weights by plain names, from `plain_names` or a checkpoint.
        buffers: non-persistent buffers by the names in `unsaved_buffers`; None: the buffers of the model keep their
            values. A buffer of another shape or dtype, such as a cache that grows, replaces the buffer of the model.

    Returns:
        One line for each buffer in ``buffers`` that had another shape or dtype in the model.

    Raises:
        CheckpointError: as for `check_weights`; also if tensors that share memory in the model have different values in
            ``tensors``.
    """
    check_weights(model, tensors)
    _refuse(_sharing_faults(plain_names(model), tensors))
    wrappers = _wrappers(model)
    try:
        model.load_state_dict({name: tensors[_plain(name, wrappers)] for name in model.state_dict()})
    except RuntimeError as error:
        _refuse([on_one_line(str(error), 500)])
    return [] if buffers is None else _load_buffers(model, buffers)


def in_dtypes_of(own: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights with their floating-point tensors converted to the floating-point dtypes of a model.

    Args:
        own: weights of the model, from `plain_names`. A weight that has no such tensor in ``own`` is not converted.
        tensors: weights by plain names.
    """
    return {
        name: value.to(own[name].dtype) if _is_floating(own.get(name)) and _is_floating(value) else value
        for name, value in tensors.items()
    }


def fitting_weights(model: nn.Module, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights that have the name and the shape of a weight of the model.

    The dtypes may be different floating-point types.

    Raises:
        CheckpointError: if there are none. The message lists the differences, as in `check_weights`.
    """
    own = plain_names(model)
    found = {name: value for name, value in tensors.items() if name in own and _fits(own[name], value)}
    if not found:
        differences = "; ".join(_differences(own, tensors))
        raise CheckpointError(f"no weight in the checkpoint fits the model: {differences}.")
    return found


def load_fitting_weights(model: nn.Module, tensors: Mapping[str, Any]) -> list[str]:
    """Copy the weights that `fitting_weights` returns into a model, converted to the dtypes of the model.

    Returns:
        A line that lists the weights in ``tensors`` that are not used, a line for the weights of the model that keep
        their values, and a line for the converted weights. A line without weights is left out.

    Raises:
        CheckpointError: if no weight fits, and for different values of tensors that share memory in the model.
    """
    own, found = plain_names(model), fitting_weights(model, tensors)
    ready = in_dtypes_of(own, found)
    tied = {_place(own[name]): name for name in found}  # a tied weight may be saved under one of its names only
    source = {name: name if name in found else tied.get(_place(entry)) for name, entry in own.items()}
    load_weights(model, {name: own[name] if each is None else ready[each] for name, each in source.items()})
    converted = [name for name in found if _describe(own[name]) != _describe(found[name])]
    unused = [name for name in tensors if name not in found]
    kept = [name for name in own if source[name] is None]
    return [
        *_listed("not used", unused, tensors),
        *_listed("kept at initial values", kept, own),
        *_listed("converted", converted, found),
    ]


def weights_digest(model_tensors: Mapping[str, Any], whole: Callable[[Tensor], Tensor | None] | None = None) -> str:
    """Return the SHA-256 (hexadecimal) of the names, dtypes, shapes and bytes of all tensors, in the order of names.

    Args:
        model_tensors: tensors by name.
        whole: function that gathers a tensor from all processes, such as the method of a strategy. It is called for one
            tensor at a time. If it returns None in this process, the tensor is not part of the result.
    """
    hasher = hashlib.sha256()
    for name in sorted(model_tensors):
        if not isinstance(model_tensors[name], Tensor):  # The extra state of a module is not a weight.
            continue
        given = model_tensors[name].detach()
        gathered = given if whole is None else whole(given)
        if gathered is None:
            continue
        tensor = gathered.resolve_conj().resolve_neg().cpu().contiguous()
        hasher.update(f"{len(name.encode())}:{name}:{tensor.dtype}:{list(tensor.shape)}:".encode())
        hasher.update(tensor_bytes(tensor))
    return hasher.hexdigest()


def _wrappers(model: nn.Module) -> list[str]:
    """Return the name prefixes that end with the attribute of a wrapper, such as ``layer.module.``, longest first."""
    prefixes = []
    for name, module in model.named_modules(remove_duplicate=False):
        start = f"{name}." if name else ""
        if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            prefixes.append(f"{start}module.")
        elif "_orig_mod" in module._modules:  # `isinstance` would need torch._dynamo, whose import takes 1 s.
            prefixes.append(f"{start}_orig_mod.")
    return sorted(prefixes, key=len, reverse=True)


def _plain(name: str, wrappers: list[str]) -> str:
    for prefix in wrappers:
        if name.startswith(prefix):
            outer = prefix[:-1].rpartition(".")[0]
            name = (f"{outer}." if outer else "") + name[len(prefix) :]
    return name


def _unsaved_places(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return (module, name in the module) of each non-persistent buffer by plain name."""
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


def _sharing_faults(own: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Describe tensors that share memory in the model (tied weights or views) if loading one would change another."""
    names_at: dict[tuple[Any, int], list[str]] = {}
    own, given = (
        {name: own_rows(each) if isinstance(each, Tensor) else each for name, each in entries.items()}
        for entries in (own, given)
    )
    for name, tensor in own.items():
        if isinstance(tensor, Tensor) and tensor.numel() and not (tensor.is_conj() or tensor.is_neg()):
            names_at.setdefault((tensor.device, tensor.untyped_storage().data_ptr()), []).append(name)
    faults = []
    for names in (names for names in names_at.values() if len(names) > 1):
        memory = own[names[0]].untyped_storage().clone()
        views = {name: _view_like(own[name], memory) for name in names}
        for name in names:
            views[name].copy_(given[name])
        changed = [name for name in names if not _has_same_bits(views[name], given[name])]
        if changed:
            faults.append(
                f"{_cut(changed[0])} and {_cut(names[-1])} share memory in the model, but not in the checkpoint"
            )
    return _first(faults, str)


def _view_like(tensor: Tensor, memory: torch.UntypedStorage) -> Tensor:
    """Return a view of ``memory`` with the offset, shape and strides of ``tensor``."""
    view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return view.set_(memory, tensor.storage_offset(), tensor.shape, tensor.stride())


def _has_same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(*(tensor.cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (a, b)))


def _fits(own: object, given: object) -> bool:
    if not isinstance(own, Tensor) or not isinstance(given, Tensor):
        return type(own) is type(given)
    is_convertible = _is_floating(own) and _is_floating(given)
    return own.shape == given.shape and (own.dtype == given.dtype or is_convertible)


def _is_floating(entry: object) -> bool:
    return isinstance(entry, Tensor) and entry.is_floating_point()


def _place(entry: object) -> object:
    """Return a value that is equal for the names of a tied weight, and different for other entries."""
    if not isinstance(entry, Tensor) or not entry.numel():
        return id(entry)
    rows = own_rows(entry)
    return entry.device, rows.data_ptr() or id(entry), entry.shape, entry.stride()


def _listed(title: str, names: list[str], entries: Mapping[str, Any]) -> list[str]:
    lines = _first(names, lambda name: f"{_cut(name)} {_describe(entries[name])}")
    return [f"{title}: {', '.join(lines)}"] if names else []


def _refuse(faults: list[str]) -> None:
    if faults:
        raise CheckpointError(f"the checkpoint does not fit the model: {'; '.join(faults)}.")


def _first(names: list[str], line: Callable[[str], str]) -> list[str]:
    """Return a line for each of the first names, and a last line with the number of the other names."""
    more = [f"and {len(names) - _MAX_SHOWN} more"] if len(names) > _MAX_SHOWN else []
    return [*map(line, names[:_MAX_SHOWN]), *more]


def _differences(own: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    changed = sorted(name for name in own.keys() & given.keys() if _describe(own[name]) != _describe(given[name]))
    lines = _first(changed, lambda name: _difference(name, own[name], given[name]))
    return _only_in(own, given, "missing") + _only_in(given, own, "unexpected") + lines


def _only_in(these: Mapping[str, Any], others: Mapping[str, Any], title: str) -> list[str]:
    names, near = sorted(these.keys() - others.keys()), others.keys() - these.keys()
    lines = _first(names, lambda name: f"{_cut(name)} {_describe(these[name])}{_near(name, near)}")
    return [f"{title} {', '.join(lines)}"] if names else []


def _difference(name: str, mine: object, given: object) -> str:
    return f"{_cut(name)}: the model has {_describe(mine)}, the checkpoint {_describe(given)}"


def _near(name: str, others: Collection[str]) -> str:
    match = nearest(name[:_MAX_NAME], [other[:_MAX_NAME] for other in sorted(others)[:_MAX_COMPARED]])
    return f" (nearest: {_cut(match)})" if match else ""


def _cut(text: str) -> str:
    return on_one_line(text, _MAX_NAME)


def _describe(tensor: object) -> str:
    """Describe the shape and dtype of a tensor, such as ``10x64 float32``, or the class of another object."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{'x'.join(map(str, tensor.shape)) or 'scalar'} {str(tensor.dtype).removeprefix('torch.')}"
