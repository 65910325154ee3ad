"""`try_validation`: runs the model on one validation batch before the first step of a fit, to find errors early.

The model is in evaluation mode. The forward uses separate random streams. No hook is called. At the end, the buffers,
the training modes and the other attributes of all modules are restored.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from loopwright.engine.forward import Forward
from loopwright.engine.modes import evaluating
from loopwright.engine.parts import Parts
from loopwright.engine.user_errors import naming_dead_workers, note_reading
from loopwright.engine.validate import ValidationSet
from loopwright.engine.weighting import Weigher
from loopwright.hooks import implements, is_shipped
from loopwright.loop import ValidationLoop

NO_HOOKS: dict[str, tuple[()]] = {"on_before_forward": (), "on_after_forward": ()}


def can_try(parts: Parts, loop: ValidationLoop) -> bool:
    """Return whether a forward without hooks computes the outputs that a validation would compute.

    The result is False if the validation loop overrides ``predict``, if a callback or the loop may change the batch or
    the model before the forward, or if the model has lazy parameters. The first training batch must determine the
    shapes of lazy parameters.
    """
    if type(loop).predict is not ValidationLoop.predict or any(map(is_lazy, parts.model.parameters())):
        return False
    names = loop.hook_names
    if any(parts.hooks[hook] for hook in ("on_before_forward", names["batch_start"], names["step_start"])):
        return False
    prepares = ("on_enter_validate", names["start"])
    listeners = [loop, *(callback for _, callback in parts.callbacks)]
    return not any(implements(each, hook) for each in listeners if not is_shipped(each) for hook in prepares)


@naming_dead_workers()
def try_validation(parts: Parts, data: ValidationSet, num_batches: int) -> list[str] | None:
    """Run the model on the first batch of a validation set, and return the names of the metrics in its outputs.

    Args:
        parts: model, device and other objects of this run. `can_try` must have returned True for them.
        data: validation set whose first batch is used.
        num_batches: number of batches that a validation reads.

    Returns:
        The names of the metrics, without the name of the set, such as ``loss``. None if the dataloader is empty, or
        if reading its first batch now could change the batches of a later validation.

    Raises:
        DataError: if the number of items in the batch is unknown, and ``num_batches`` is above 1.
    """
    model, state = parts.model, parts.state
    with parts.streams.branch("dry pass", state.global_step, data.name), restored(model), torch.no_grad():
        try:
            read = data.source.peek()
        except Exception as error:
            note_reading(error, f"dataloader of {data.name}", "batch 0")
            raise
        if read is None:
            return None
        batch = parts.device.move(read[0])
        named = replace(state, validation_name=f"the first batch of {data.name}, before the first step")
        silent = replace(parts, hooks={**parts.hooks, **NO_HOOKS}, state=named)
        with evaluating(model):
            outputs = Forward(silent, parts.strategy.evaluate)(batch)
    if num_batches > 1:
        Weigher(data.source, parts.log.warned).known(outputs, batch, 0)
    return [name for name, value in outputs.items() if name != "num_items" and _may_be_metric(value)]


def _may_be_metric(value: Any) -> bool:
    if isinstance(value, Tensor | numpy.ndarray):
        return value.shape in ((), (1,))
    return isinstance(value, numbers.Real)


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restore the values of all buffers and the attributes of all modules of ``model`` at the end of the context."""
    modules = list(model.modules())
    attributes = [dict(vars(module)) for module in modules]
    buffers = [dict(module.named_buffers(recurse=False)) for module in modules]
    copies = [{name: buffer.clone() for name, buffer in each.items()} for each in buffers]
    try:
        yield
    finally:
        for module, before, own, copied in zip(modules, attributes, buffers, copies, strict=True):
            now = vars(module)
            for name in now.keys() - before.keys():
                del now[name]
            now.update({name: value for name, value in before.items() if now.get(name) is not value})
            for name, buffer in own.items():
                setattr(module, name, buffer)
                buffer.copy_(copied[name])
