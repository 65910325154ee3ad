"""`explain`: searches the model and the data for possible causes of a difference between two runs.

The difference may also have a cause that `explain` does not find.
"""

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
    """Observations of two runs whose results differ. `explain` derives possible causes from these observations.

    Attributes:
        model: model of the second run.
        dataloader: training dataloader of the second run.
        is_before: whether the interruption, the additional validations or the workers of the second run cannot be the
            cause of the first difference. In this case, two unchanged runs also differ.
        changed_attributes: names of attributes of modules that training changes, except parameters and buffers.
        changed_weights: names of parameters and buffers that a validation changes.
        changed_in_forward: names of buffers and of other attributes of modules, except parameters, that a forward
            changes.
        num_rows: number of rows of the first tensor of each micro-batch; empty if these rows are the samples.
        has_drawn: whether the model draws random numbers for other purposes than dropout.
        has_batch_statistics: whether the model normalizes values by the statistics of a micro-batch.
        is_sum: whether the gradients have the size that they have if the loss is a sum over samples.
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
    is_sum: bool = False


def explain(what: str, difference: Difference, evidence: Evidence) -> list[str]:
    """Return one line for each possible cause that was found.

    If the first difference is in a micro-batch, only causes in the data are returned.
    """
    model, dataloader = evidence.model, evidence.dataloader
    if difference.kind == "batch":
        found = [*_generators_of(dataloader), *_own_dataloader(what, dataloader)]
        return found or _unknown_data(what, dataloader)
    found = []
    if evidence.is_before:
        found.append("two unchanged runs of this configuration also differ; use loopwright verify determinism")
    if what == "accumulation":
        if evidence.num_rows:
            found.append(_rows(evidence.num_rows, "each micro-batch"))
        if evidence.has_batch_statistics:
            found.append(_batch_statistics(model, "one micro-batch", "loop.grad_accum_steps=1"))
        if evidence.has_drawn:
            found.append("the model draws new random numbers in the forward of each micro-batch")
        if evidence.changed_in_forward:
            names = _shown(evidence.changed_in_forward)
            found.append(f"{names}: changed by the model in the forward of each micro-batch")
        return found
    if difference.kind == "state" and difference.name.startswith("callbacks."):
        found.append("the state_dict of callbacks is also compared; a stored clock time differs in every run")
    found += _generators_in("model", model)
    if what == "validation" and evidence.changed_weights:
        names = _shown(evidence.changed_weights)
        found.append(f"{names}: also changed by the model in evaluation mode; change the value only if self.training")
    if what in ("resume", "validation") and evidence.changed_attributes:
        names = _shown(evidence.changed_attributes)
        found.append(
            f"{names}: changed in plain attributes; a checkpoint does not contain plain attributes, and a validation "
            "does not restore them; use register_buffer"
        )
    return found


def explain_ranks(difference: Difference, evidence: Evidence) -> list[str]:
    """Return one line for each possible cause of a difference between one process and several processes."""
    dataloader, found = evidence.dataloader, []
    if is_own_dataloader(dataloader):
        dataset = getattr(dataloader, "dataset", None)
        what = f"{type(dataloader).__name__} is a dataloader of your own"
        if isinstance(dataset, IterableDataset):
            what = f"data set {type(dataset).__name__} is iterable"
        found.append(
            f"{what}: each process reads it, so it must divide its samples by the variables RANK and WORLD_SIZE; "
            "loopwright.data.Loader divides each micro-batch"
        )
    if difference.kind == "batch":
        return found or _generators_of(dataloader) or _unknown_data("ranks", dataloader)
    if evidence.is_sum:
        found.append(
            "the loss may be a sum over samples; return a mean, with num_items if it is not a mean over the samples"
        )
    if evidence.num_rows:
        found.append(_rows(evidence.num_rows, "each process"))
    if evidence.has_batch_statistics:
        found.append(_batch_statistics(evidence.model, "the rows of one process", "one process"))
    if evidence.has_drawn:
        found.append("the model draws new random numbers in each forward, and other numbers in each process")
    if evidence.changed_in_forward:
        names = _shown(evidence.changed_in_forward)
        found.append(f"{names}: changed by the model in each forward, from the rows of one process")
    return [*found, *_generators_in("model", evidence.model)]


def is_own_dataloader(dataloader: Any) -> bool:
    """Return whether each process reads the whole dataloader, because Loopwright cannot divide its micro-batches."""
    if isinstance(dataloader, Loader | list | tuple):
        return False
    return type(dataloader) is not DataLoader or isinstance(dataloader.dataset, IterableDataset)


def is_sum(ratio: float, num_parts: int) -> bool:
    """Return whether the loss is probably a sum over samples instead of a mean.

    Args:
        ratio: size of the gradient of a batch that was cut into parts, relative to the gradient of the whole batch.
        num_parts: number of parts of each batch: micro-batches or processes.
    """
    return abs(ratio * num_parts - 1) < 0.05


def _rows(num_rows: Sequence[int], part: str) -> str:
    counts = ", ".join(map(str, num_rows[:_MAX_SHOWN]))
    return (
        f"the model returns no num_items, so {part} is weighted by its number of samples, but its first tensor has "
        f"{counts} … rows; if the loss is a mean over these rows, also return num_items"
    )


def _batch_statistics(model: nn.Module, part: str, remedy: str) -> str:
    names = [f"{name} ({type(each).__name__})" for name, each in model.named_modules() if isinstance(each, _BatchNorm)]
    return (
        f"{_shown(names or ['torch.nn.functional.batch_norm'])}: batch statistics, computed from {part}; "
        f"use GroupNorm or LayerNorm, or {remedy}"
    )


def _generators_of(dataloader: Any) -> list[str]:
    dataset = getattr(dataloader, "dataset", None)
    name = "" if dataset is None else type(dataset).__name__
    own = [] if isinstance(dataloader, Loader | DataLoader) else _generators_in("dataloader", dataloader)
    return [*([] if dataset is None else _generators_in(f"data set {name}", dataset)), *own]


def _generators_in(what: str, owner: Any) -> list[str]:
    """Return a message about random generators in the attributes of an object, and in globals that its class uses."""
    names = [*_attributes(owner, "", _MAX_DEPTH, set()), *_globals(type(owner))]
    if not names:
        return []
    return [
        f"{what} has its own random generator ({_shown(names)}), which is neither seeded for each sample nor saved; "
        "use the global generators of torch, NumPy or Python"
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
    """Yield the names of module-level generators that the methods of a class use."""
    for base in kind.__mro__:
        for method in vars(base).values():
            if isinstance(method, FunctionType):
                for name in method.__code__.co_names:
                    if isinstance(method.__globals__.get(name), _GENERATORS):
                        yield f"{method.__module__}.{name}"


def _own_dataloader(what: str, dataloader: Any) -> list[str]:
    if type(dataloader) in (Loader, DataLoader) or isinstance(dataloader, list | tuple):
        return []
    own = "a resume restores neither its random numbers nor the batch that it reads next"
    how = "the random numbers of its workers are not seeded for each sample" if what == "workers" else own
    return [
        f"{type(dataloader).__name__} is a dataloader of your own: {how}; "
        "use loopwright.data.Loader, which seeds each sample by (seed, pass, index)"
    ]


def _unknown_data(what: str, dataloader: Any) -> list[str]:
    dataset = getattr(dataloader, "dataset", None)
    if what == "workers" and isinstance(dataset, IterableDataset):
        name = type(dataset).__name__
        return [
            f"data set {name} is iterable: each worker reads all samples, unless the data set uses get_worker_info to "
            "select a part of them; the order of the samples then depends on the number of workers"
        ]
    if what == "accumulation":
        return [
            "whole batches and micro-batches contain different samples; use loopwright.data.Loader, which reads the "
            "samples in the same order for each batch size"
        ]
    return [
        "the data differ when they are read again, for example because of a counter in the data set, a clock, a file "
        "that changes or a random source without a seed"
    ]


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(names[:_MAX_SHOWN]) + more
