"""`predict`: computes the predictions of a model for all samples of one dataloader.

As in a validation, the model is in evaluation mode, and random numbers are drawn from a separate branch of the run's
random streams. ::

    for each batch of the dataloader:
        rows = model.predict(batch)                # or the outputs of model(batch) that have one row per sample
    predictions = the rows of all batches, concatenated
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy
import torch
from torch import Tensor

from loopwright.engine.forward import Forward
from loopwright.engine.hook_table import call_hooks
from loopwright.engine.modes import evaluating
from loopwright.engine.parts import Parts
from loopwright.engine.user_errors import naming_dead_workers
from loopwright.engine.validate import ValidationSet, read_batches
from loopwright.engine.weighting import Weigher, as_outputs
from loopwright.errors import DataError
from loopwright.loop import ValidationLoop

_ONE = "prediction"  # name of the only array if ``model.predict`` returns a tensor
_NOT_ROWS = ("loss", "num_items")  # outputs of a model that are not predictions
_EXPECTED = "expected a tensor, or a mapping of tensors, with one row per sample"

Array = numpy.ndarray[Any, numpy.dtype[Any]]


@naming_dead_workers()
def predict(parts: Parts, loop: ValidationLoop, data: ValidationSet) -> dict[str, Array]:
    """Return the predictions for all samples of a dataloader, by name, in the order of the samples.

    Only the hooks ``on_enter_validate`` and ``on_before_forward`` are called. With these hooks, a callback can replace
    the weights by their average, or change a batch, like in a validation.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        loop: validation loop, which ``on_enter_validate`` receives.
        data: dataloader to read, with its name.

    Raises:
        DataError: if the dataloader is empty, if ``len(dataloader)`` differs from the number of its batches, or if two
            batches have outputs with different names or rows with different shapes.
        TypeError: if the model returns no tensors with one row per sample. The message says which method to write.
    """
    model, found, weigher = parts.model, _Rows(), Weigher(data.source, parts.log.warned)
    with ExitStack() as stack:
        stack.enter_context(parts.streams.branch("predict", parts.state.global_step, data.name))
        call_hooks(parts.hooks["on_enter_validate"], parts.trainer, stack, data.dataloader, loop)
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.no_grad())
        parts.strategy.equalise_buffers()
        own: Callable[..., Any] | None = getattr(model, "predict", None)
        silent = replace(parts, hooks={**parts.hooks, "on_after_forward": ()})
        forward = Forward(silent, own or parts.strategy.evaluate, _as_predictions if own else _as_any_outputs)
        for index, host_batch in enumerate(read_batches(data, data.source.max_batches)):
            outputs = _forward(forward, parts.device.move(host_batch), has_own=own is not None)
            num_rows = weigher.num_samples(host_batch, index)
            found.add(_check_rows(outputs, num_rows) if own else _choose_rows(outputs, num_rows), index)
    return found.joined()


def _forward(forward: Forward, batch: Any, *, has_own: bool) -> dict[str, Any]:
    try:
        return forward(batch)
    except Exception as error:
        if not has_own:
            error.add_note("To predict for a batch without a target, write a method predict(batch) in the model.")
        raise


def _as_predictions(returned: Any) -> dict[str, Any]:
    """Convert the result of ``model.predict`` to a mapping."""
    if isinstance(returned, Tensor):
        return {_ONE: returned}
    if not isinstance(returned, Mapping):
        raise TypeError(f"predict returned an object of class {type(returned).__name__}: {_EXPECTED}.")
    return {str(name): value for name, value in returned.items()}


def _as_any_outputs(returned: Any) -> dict[str, Any]:
    return as_outputs(returned, needs_loss=False)


def _check_rows(outputs: Mapping[str, Any], num_rows: int | None) -> dict[str, Tensor]:
    """Check that each output of ``model.predict`` is a tensor with one row per sample. Return the outputs."""
    rows: dict[str, Tensor] = {}
    for name, value in outputs.items():
        if not isinstance(value, Tensor) or not value.ndim:
            given = (
                f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"of class {type(value).__name__}"
            )
            raise TypeError(f"predict returned {name} {given}: {_EXPECTED}.")
        rows[name] = value
    lengths = {len(value) for value in rows.values()}
    if len(lengths) != 1 or (num_rows is not None and lengths != {num_rows}):
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in rows.items()) or "no tensor"
        batch = "a batch" if num_rows is None else f"a batch of {num_rows} samples"
        raise TypeError(f"predict returned {shapes} for {batch}: {_EXPECTED}.")
    return rows


def _choose_rows(outputs: Mapping[str, Any], num_rows: int | None) -> dict[str, Tensor]:
    """Return the outputs of ``model(batch)`` that have one row per sample."""
    tensors = {
        name: value
        for name, value in outputs.items()
        if isinstance(value, Tensor) and value.ndim and name not in _NOT_ROWS
    }
    if num_rows is None and len({len(value) for value in tensors.values()}) == 1:
        return tensors
    rows = {name: value for name, value in tensors.items() if len(value) == num_rows}
    if not rows:
        problem = "The model has no method predict, and model(batch) returned no tensor with one row per sample"
        raise TypeError(f"{problem}: write predict(batch), which returns such a tensor or a mapping of them.")
    return rows


class _Rows:
    """Collects the rows of all batches on the host."""

    def __init__(self) -> None:
        self._arrays: dict[str, list[Array]] = {}

    def add(self, rows: Mapping[str, Tensor], index: int) -> None:
        """Add the rows of a batch.

        Raises:
            DataError: if the names or the shapes of the rows differ from the previous batches.
        """
        arrays = {name: _to_array(value) for name, value in rows.items()}
        if not self._arrays:
            self._arrays = {name: [] for name in arrays}
        if arrays.keys() != self._arrays.keys():
            raise DataError(
                f"predict: the outputs for batch {index} are {_listed(arrays)}; "
                f"the outputs for the earlier batches are {_listed(self._arrays)}."
            )
        for name, array in arrays.items():
            before = self._arrays[name]
            if before and before[0].shape[1:] != array.shape[1:]:
                problem = f"rows of shape {array.shape[1:]} in batch {index}, and of shape {before[0].shape[1:]} before"
                raise DataError(f"predict: {name} has {problem}; expected rows of one shape.")
            before.append(array)

    def joined(self) -> dict[str, Array]:
        """Return the rows of all batches as one array per name."""
        return {name: numpy.concatenate(parts) for name, parts in self._arrays.items()}


def _to_array(value: Tensor) -> Array:
    """Convert a tensor to a NumPy array. NumPy lacks bfloat16, so bfloat16 is converted to float32 without rounding."""
    host = value.detach().cpu()
    return (host.float() if host.dtype == torch.bfloat16 else host).numpy()


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "nothing"
