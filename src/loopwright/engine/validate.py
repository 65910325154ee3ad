"""`validate`: averages the outputs of a model over all items of one dataloader.

The model is in evaluation mode, and separate random streams are used. ::

    for each of num_batches batches, from the beginning:
        outputs = loop.predict(model, batch)          # calls model(batch), unless the loop overrides predict
        sums += num_items * outputs; items += num_items
    metrics = sums / items
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from loopwright.engine.forward import Forward
from loopwright.engine.hook_table import call_hooks, reporting
from loopwright.engine.modes import evaluating
from loopwright.engine.parts import Parts
from loopwright.engine.user_errors import naming_dead_workers, note_reading
from loopwright.engine.weighting import Weigher, WeightedMean, as_outputs
from loopwright.errors import DataError
from loopwright.loop import ValidationLoop
from loopwright.plan import mean_prefix
from loopwright.protocols import BatchSource, Padding
from loopwright.run_state import RunState

_log = logging.getLogger("loopwright")
_END = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSet:
    """A validation dataloader with its name.

    Attributes:
        name: prefix of the metric names of this dataloader, such as ``val``, ``val/0`` or ``val/<name>``.
        dataloader: dataloader that the user gave; hooks receive this object.
        source: source that reads the dataloader.
    """

    name: str
    dataloader: Any
    source: BatchSource


@naming_dead_workers()
def validate(parts: Parts, loop: ValidationLoop, data: ValidationSet, max_batches: int) -> dict[str, float]:
    """Validate one dataloader and log the averages as ``<name>/<key>``.

    Args:
        parts: model, device, hooks (with the hooks of ``loop``) and other objects of this run; see `Parts`.
        loop: validation loop, which defines the names of the hooks to call.
        data: dataloader to validate, with its name.
        max_batches: largest number of batches to read.

    Returns:
        The averages, and all other metrics that were logged during the validation, by their full names.

    Raises:
        DataError: if the dataloader is empty, if it has fewer or more batches than its length, or if a worker dies.
        Interruption: after a batch, if the fit that runs this validation is interrupted.
    """
    trainer, model, hooks, names = parts.trainer, parts.model, parts.hooks, loop.hook_names
    with ExitStack() as stack:
        stack.enter_context(reporting(hooks[names["exception"]], trainer))
        stack.enter_context(parts.streams.branch("validate", parts.state.global_step, data.name))
        stack.enter_context(_current(parts.state, data.name, max_batches))
        metrics = stack.enter_context(parts.log.collecting())
        call_hooks(hooks["on_enter_validate"], trainer, stack, data.dataloader, loop)
        stack.enter_context(evaluating(model))
        call_hooks(hooks[names["start"]], trainer, model, data.dataloader, loop)
        with torch.no_grad():
            means = _run_batches(parts, loop, data, max_batches)
        if means:
            parts.log.log({f"{data.name}/{key}": value for key, value in means.items()}, parts.state.global_step)
        call_hooks(hooks[names["end"]], trainer, model, loop)
        parts.log.share(metrics)
    return metrics


def means_over_sets(metrics: Mapping[str, float], names: Sequence[str], root: str = "val") -> dict[str, float]:
    """Return the mean over several validation sets, for each metric that every set has.

    Args:
        metrics: metrics that were logged during the validations of these sets, by full name.
        names: names of the sets.
        root: common beginning of the names of the sets.

    Returns:
        The means, with the name prefix that `mean_prefix` returns. Empty if `mean_prefix` returns None.
    """
    prefix = mean_prefix(names, root)
    if prefix is None:
        return {}
    keys = [name.removeprefix(f"{names[0]}/") for name in metrics if name.startswith(f"{names[0]}/")]
    shared = [key for key in keys if all(f"{name}/{key}" in metrics for name in names)]
    return {f"{prefix}/{key}": sum(metrics[f"{name}/{key}"] for name in names) / len(names) for key in shared}


def _own_predict(loop: ValidationLoop, model: nn.Module) -> Callable[..., Any] | None:
    """Return ``predict`` of ``loop``, bound to ``model``, if the loop overrides ``predict``; otherwise None."""
    return None if type(loop).predict is ValidationLoop.predict else partial(loop.predict, model)


@contextmanager
def _current(state: RunState, name: str, num_batches: int) -> Iterator[None]:
    """Write the current validation to ``state`` during the context, and then restore the values of the outer one."""
    outer = state.validation_name, state.batch_idx, state.num_val_batches, state.is_padding
    state.validation_name, state.batch_idx, state.num_val_batches, state.is_padding = name, None, num_batches, False
    try:
        yield
    finally:
        state.validation_name, state.batch_idx, state.num_val_batches, state.is_padding = outer


def _run_batches(parts: Parts, loop: ValidationLoop, data: ValidationSet, max_batches: int) -> dict[str, float]:
    trainer, model, hooks, names = parts.trainer, parts.model, parts.hooks, loop.hook_names
    parts.strategy.equalise_buffers()
    batch_start, batch_end = hooks[names["batch_start"]], hooks[names["batch_end"]]
    step_start, step_end = hooks[names["step_start"]], hooks[names["step_end"]]
    predict = _own_predict(loop, model)
    read = partial(as_outputs, needs_loss=False) if predict else as_outputs
    forward = Forward(parts, predict or parts.strategy.evaluate, read)
    mean, weigher = WeightedMean(parts.device.sum_dtype), Weigher(data.source, parts.log.warned)
    weigh = weigher.known if max_batches > 1 else weigher
    for batch_idx, host_batch in enumerate(read_batches(data, max_batches)):
        parts.state.batch_idx = batch_idx
        if parts.agreement is not None:
            parts.agreement.look(batch_idx)
        if type(host_batch) is Padding:
            if parts.strategy.is_sharded:
                forward(parts.device.move(host_batch.batch))
            if parts.stopping.is_asked:
                parts.stopping.decide_in_validation()
            continue
        batch = parts.device.move(host_batch)
        call_hooks(batch_start, trainer, model, batch, batch_idx)
        call_hooks(step_start, trainer, model, batch)
        outputs = forward(batch)
        call_hooks(step_end, trainer, model, outputs, batch)
        if averaged := weigher.metrics(outputs, batch, batch_idx):
            weight = weigh(outputs, batch, batch_idx)
            mean.add(averaged, 1 if weight is None else weight)
        call_hooks(batch_end, trainer, model, outputs, batch, batch_idx)
        if parts.stopping.is_asked:
            parts.stopping.decide_in_validation()
    return mean.result(parts.strategy.ranks)


def read_batches(data: ValidationSet, max_batches: int | None) -> Iterator[Any]:
    """Yield the first ``max_batches`` batches of a dataloader; None: all batches.

    Raises:
        DataError: if the dataloader is empty, or has fewer or more batches than its length.
    """
    num_done, has_more = 0, False
    try:
        batches = data.source.read(0, 0)
        for batch in itertools.islice(batches, max_batches):
            yield batch
            num_done += 1
        if max_batches == data.source.max_batches:
            has_more = next(batches, _END) is not _END
    except Exception as error:
        note_reading(error, f"dataloader of {data.name}", f"batch {num_done}")
        raise
    if max_batches == 0:
        raise _empty(data)
    if max_batches is None or num_done < max_batches:
        _check_early_end(data, num_done, max_batches)
    if has_more:
        raise DataError(f"{data.name}: the dataloader has more than the {max_batches} batches of its length.")


def _empty(data: ValidationSet) -> DataError:
    return DataError(f"{data.name}: the dataloader is empty; expected at least one batch.")


def _check_early_end(data: ValidationSet, num_done: int, max_batches: int | None) -> None:
    if data.source.num_batches is not None:
        raise DataError(
            f"{data.name}: the dataloader ended after {num_done} of the {max_batches} batches of its length."
        )
    if not num_done:
        raise _empty(data)
    if max_batches == data.source.max_batches:
        return  # ``source.max_batches`` is an upper bound, so a shorter pass is no error
    _log.warning("%s: the dataloader ended after %d of %d batches.", data.name, num_done, max_batches)
