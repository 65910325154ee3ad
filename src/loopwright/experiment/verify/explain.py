"""What in a model and its data can explain that two runs differ: looked for, not proved."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, IterableDataset

from loopwright.data import Loader
from loopwright.experiment.verify.equality import Difference
from loopwright.hooks import Callback

_GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
_MAX_DEPTH = 3
_MAX_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of two runs that differ.

    Attributes:
        model: of one of them.
        dataloader: that was trained on.
        is_before: whether they differ before they were treated differently.
        changed_attributes: plain attributes of modules that training changes.
        changed_weights: parameters and buffers that a validation changes.
        changed_in_forward: buffers and plain attributes that a forward changes.
        num_rows: of the first tensors of micro-batches, where these are not of a row a sample, and count as items.
        has_drawn: whether the model draws random numbers, dropout apart.
        has_batch_statistics: whether the model normalizes by those of a micro-batch.
    """

    model: nn.Module
    dataloader: Any
    is_before: bool = False
    changed_attributes: Sequence[str] = ()
    changed_weights: Sequence[str] = ()
    changed_in_forward: Sequence[str] = ()
    num_rows: Sequence[int] = ()
    has_drawn: bool = False
    has_batch_statistics: bool = False


def explain(what: str, difference: Difference, evidence: Evidence) -> list[str]:
    """What is known to make such runs differ, a line each; of the data alone where a micro-batch differed first."""
    model, dataloader = evidence.model, evidence.dataloader
    if difference.kind == "batch":
        found = [*_generators_of(dataloader), *_own_dataloader(what, dataloader)]
        return found or _unknown_data(what, dataloader)
    found = []
    if evidence.is_before:
        found.append("this run is not the same twice, whatever is done with it: loopwright verify determinism")
    if what == "accumulation":
        if evidence.num_rows:
            counts = ", ".join(map(str, evidence.num_rows[:_MAX_SHOWN]))
            found.append(
                f"micro-batches count as {counts} … items, the rows of their first tensors; return num_items beside "
                "the loss, the number that it is a mean over"
            )
        if evidence.has_batch_statistics:
            found.append(_batch_statistics(model))
        if evidence.has_drawn:
            found.append("the model draws random numbers in its forward, others for each micro-batch")
        if evidence.changed_in_forward:
            names = _shown(evidence.changed_in_forward)
            found.append(f"{names}: changed by the model in its forward, and so once for each micro-batch")
        return found
    if difference.kind == "state" and difference.name.startswith("callbacks."):
        found.append("what a callback keeps in its state_dict is compared, too; a clock is never the same twice")
    found += _generators_in("model", model)
    if what == "validation" and evidence.changed_weights:
        names = _shown(evidence.changed_weights)
        found.append(f"{names}: changed by the model in evaluation mode, too; change it where self.training")
    if what in ("resume", "validation") and evidence.changed_attributes:
        names = _shown(evidence.changed_attributes)
        found.append(
            f"{names}: changed in plain attributes, which no checkpoint holds and no validation gives back; "
            "use register_buffer"
        )
    return found


def is_sum(ratio: float, num_micro_batches: int) -> bool:
    """Whether gradients in this ratio, of cut batches to whole ones, are those of a loss that is a sum."""
    return abs(ratio * num_micro_batches - 1) < 0.05


def _batch_statistics(model: nn.Module) -> str:
    names = [f"{name} ({type(each).__name__})" for name, each in model.named_modules() if isinstance(each, _BatchNorm)]
    return (
        f"{_shown(names or ['torch.nn.functional.batch_norm'])}: batch statistics, which are those of a micro-batch; "
        "GroupNorm and LayerNorm have none, and loop.grad_accum_steps=1 cuts no batch"
    )


def _generators_of(dataloader: Any) -> list[str]:
    dataset = getattr(dataloader, "dataset", None)
    name = "" if dataset is None else type(dataset).__name__
    own = [] if isinstance(dataloader, Loader | DataLoader) else _generators_in("dataloader", dataloader)
    return [*([] if dataset is None else _generators_in(f"data set {name}", dataset)), *own]


def _generators_in(what: str, owner: Any) -> list[str]:
    """The random generators that an object holds, or that its class reads from its module."""
    names = [*_attributes(owner, "", _MAX_DEPTH, set()), *_globals(type(owner))]
    if not names:
        return []
    return [
        f"{what} has a random generator of its own ({_shown(names)}), whose state is neither seeded by sample nor "
        "saved; draw from torch's, NumPy's or Python's global stream, which is"
    ]


def _attributes(owner: Any, path: str, depth: int, seen: set[int]) -> Iterator[str]:
    if id(owner) in seen:
        return
    seen.add(id(owner))
    if isinstance(owner, nn.Module):
        children: Mapping[Any, Any] = dict(vars(owner)) | dict(owner.named_children())
    elif isinstance(owner, Mapping):
        children = owner
    elif isinstance(owner, list | tuple):
        children = dict(enumerate(owner[:8]))
    else:
        children = getattr(owner, "__dict__", {})
    for name, value in children.items():
        where = f"{path}.{name}" if path else str(name)
        if isinstance(value, _GENERATORS):
            yield where
        elif depth and not isinstance(value, Tensor | str | bytes | int | float | Callback):
            yield from _attributes(value, where, depth - 1, seen)


def _globals(kind: type) -> Iterator[str]:
    """Generators of a module that the methods of a class name."""
    for base in kind.__mro__:
        for method in vars(base).values():
            if isinstance(method, FunctionType):
                for name in method.__code__.co_names:
                    if isinstance(method.__globals__.get(name), _GENERATORS):
                        yield f"{method.__module__}.{name}"


def _own_dataloader(what: str, dataloader: Any) -> list[str]:
    if type(dataloader) in (Loader, DataLoader) or isinstance(dataloader, list | tuple):
        return []
    own = "what it draws, and goes on from, is its own affair"
    how = "its workers draw as they please" if what == "workers" else own
    return [
        f"{type(dataloader).__name__} is a dataloader of another kind, which is used as it is: {how}; "
        "loopwright.data.Loader seeds each sample by (seed, pass, index)"
    ]


def _unknown_data(what: str, dataloader: Any) -> list[str]:
    dataset = getattr(dataloader, "dataset", None)
    if what == "workers" and isinstance(dataset, IterableDataset):
        name = type(dataset).__name__
        return [
            f"data set {name} is iterable: a worker reads all of it unless it asks get_worker_info for its "
            "part, and parts come in another order"
        ]
    if what == "accumulation":
        return ["the two ways of cutting do not hold the same samples; loopwright.data.Loader keeps their order"]
    return [
        "the data are not the same when they are read again: what a data set counts in an attribute, a clock, a file "
        "that changes, a source without a seed"
    ]


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(names[:_MAX_SHOWN]) + more
