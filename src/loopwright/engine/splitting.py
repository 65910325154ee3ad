"""`Splitting`: computes a micro-batch in several parts after an out-of-memory error of the device.

::

    repeat:
        for each part of the rows of the micro-batch:
            outputs = model(part)
            (outputs["loss"] * num_items).backward()
        after an out-of-memory error: drop these gradients, free memory, and double the number of parts

For any number of parts, the gradient is the sum over all items of the micro-batch. Each hook is called once, with the
outputs of the whole micro-batch. Later micro-batches have the same number of parts. Checkpoints contain this number.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from loopwright.batch_rows import count_rows, select_rows
from loopwright.engine.forward import Forward
from loopwright.engine.parts import Parts
from loopwright.engine.user_errors import check_has_gradient, note_model
from loopwright.engine.weighting import Weigher, given_items
from loopwright.seeding import capture, restore

_log = logging.getLogger("loopwright")
_HOOKS = ("on_before_forward", "on_after_forward")


class Splitting:
    """Runs the forward and the backward of a micro-batch, and splits the micro-batch after an out-of-memory error.

    Args:
        parts: model, device, hooks and other objects of this run; see `Parts`.
        weigher: object that counts the items of a micro-batch.
    """

    def __init__(self, parts: Parts, weigher: Weigher) -> None:
        self._parts = parts
        self._weigher = weigher
        silent = replace(parts, hooks={**parts.hooks, **dict.fromkeys(_HOOKS, ())})
        self._forward = Forward(silent, parts.strategy.call)

    def run(self, batch: Any, index: int, *, is_padding: bool = False) -> tuple[dict[str, Any], float | Tensor]:
        """Compute the outputs of a micro-batch. Add its gradients to the gradients of the parameters.

        The added gradients are sums over the items of the micro-batch.

        Args:
            batch: the micro-batch, on the device.
            index: index of the micro-batch in its pass.
            is_padding: whether the micro-batch is a `Padding`, whose number of items is 0.

        Returns:
            The outputs, detached if there were several parts, and the number of items.

        Raises:
            Exception: the out-of-memory error of the device, if the micro-batch has too few rows for more parts, or if
                its tensors differ in the number of rows.
        """
        parts, stream = self._parts, self._parts.device.stream
        args = self._called("on_before_forward", batch)
        held = self._take_gradients()
        streams = capture(stream)
        has_called: set[str] = set()
        while True:
            outputs, weight, error = self._attempt(args, batch, None if is_padding else index, has_called)
            if error is None:
                break
            self._take_gradients()
            num_rows = count_rows(args)
            if num_rows is None or num_rows <= parts.state.num_parts:
                what = "each part has one row" if num_rows is not None else "its tensors differ in the number of rows"
                error.add_note(f"device.on_oom=split cannot split the micro-batch further: {what}.")
                raise error
            parts.state.num_parts *= 2
            error = None  # the error may refer to tensors that must be freed
            parts.device.free_memory()
            restore(streams, stream)
            _log.warning(
                "Out-of-memory error in step %d: each micro-batch is now computed in %d parts (device.on_oom=split).",
                parts.state.global_step + 1,
                parts.state.num_parts,
            )
        self._add_gradients(held)
        return outputs, weight

    def _attempt(
        self, args: Any, batch: Any, index: int | None, has_called: set[str]
    ) -> tuple[dict[str, Any], float | Tensor, Exception | None]:
        """Compute all parts. Return the outputs, the number of items, and the out-of-memory error or None."""
        try:
            outputs, weight = self._compute(args, batch, index, has_called)
        except Exception as error:
            if not self._parts.device.is_out_of_memory(error):
                raise
            return {}, 0, error.with_traceback(None)
        return outputs, weight, None

    def _compute(
        self, args: Any, batch: Any, index: int | None, has_called: set[str]
    ) -> tuple[dict[str, Any], float | Tensor]:
        num_parts = self._parts.state.num_parts
        if num_parts == 1:
            outputs = self._forward(args)
            weight = 0 if index is None else self._weigher.known(outputs, batch, index)
            self._call_once(has_called, "on_after_forward", outputs, batch)
            self._call_once(has_called, "on_before_backward", outputs)
            self._backward(outputs, weight)
            self._call_once(has_called, "on_after_backward", outputs)
            return outputs, weight
        num_rows = count_rows(args) or 0
        size = -(-num_rows // num_parts)
        found: list[tuple[dict[str, Any], float | Tensor, int]] = []
        for start in range(0, num_rows, size):
            part = select_rows(args, slice(start, start + size))
            outputs = self._forward(part)
            own_rows = min(size, num_rows - start)
            weight = given_items(outputs) if outputs.get("num_items") is not None else own_rows
            weight = 0 if index is None else weight
            self._backward(outputs, weight)
            detached = {name: each.detach() if isinstance(each, Tensor) else each for name, each in outputs.items()}
            found.append((detached, weight, own_rows))
            del outputs
        joined, total = join_outputs(found)
        self._call_once(has_called, "on_after_forward", joined, batch)
        self._call_once(has_called, "on_before_backward", joined)
        self._call_once(has_called, "on_after_backward", joined)
        return joined, total

    def _backward(self, outputs: Mapping[str, Any], weight: float | Tensor) -> None:
        if not isinstance(weight, Tensor) and not weight:
            return
        loss = outputs["loss"]
        try:
            total = loss * weight
            if self._parts.scaling is not None:
                total = self._parts.scaling.scale(total, weight)
            total.backward()
        except Exception as error:
            check_has_gradient(loss)
            note_model(error, self._parts.model, self._parts.state, "the backward of model")
            raise

    def _called(self, name: str, batch: Any) -> Any:
        """Call the hooks ``name`` before a forward. Return the argument that these hooks pass to the model."""
        args: list[Any] = [batch]
        kwargs: dict[str, Any] = {}
        for hook in self._parts.hooks[name]:
            hook(self._parts.trainer, self._parts.model, batch, args, kwargs)
        if len(args) != 1 or kwargs:
            raise TypeError("on_before_forward: expected one argument of the model with device.on_oom=split.")
        return args[0]

    def _call_once(self, has_called: set[str], name: str, *values: Any) -> None:
        if name not in has_called:
            has_called.add(name)
            for hook in self._parts.hooks[name]:
                hook(self._parts.trainer, self._parts.model, *values)

    def _parameters(self) -> list[Tensor]:
        optimizer = self._parts.optimizer
        assert optimizer is not None, "fit refuses a run without an optimizer"
        return [each for group in optimizer.param_groups for each in group["params"]]

    def _take_gradients(self) -> list[Tensor | None]:
        """Remove the gradients of all parameters, and return them."""
        parameters = self._parameters()
        taken = [each.grad for each in parameters]
        for each in parameters:
            each.grad = None
        return taken

    def _add_gradients(self, held: Sequence[Tensor | None]) -> None:
        for parameter, before in zip(self._parameters(), held, strict=True):
            if before is not None:
                parameter.grad = before if parameter.grad is None else parameter.grad + before


def join_outputs(
    found: Sequence[tuple[dict[str, Any], float | Tensor, int]],
) -> tuple[dict[str, Any], float | Tensor]:
    """Join the outputs of the parts of a micro-batch.

    Scalar tensors are averaged, weighted by the number of items of each part. Tensors with one row per sample are
    concatenated. For any other output, the value of the last part is used.

    Args:
        found: outputs without gradients, number of items, and number of rows of each part.

    Returns:
        The outputs, and the number of items in all parts.
    """
    total: float | Tensor = sum((weight for _, weight, _ in found[1:]), start=found[0][1])
    divisor = total.clamp(min=1) if isinstance(total, Tensor) else total or 1
    joined = dict(found[-1][0])
    for name, last in joined.items():
        values = [outputs.get(name) for outputs, _, _ in found]
        if name == "num_items":
            joined[name] = total
        elif isinstance(last, Tensor) and not last.ndim:
            terms = [_weighed(value, weight) for value, (_, weight, _) in zip(values, found, strict=True)]
            joined[name] = torch.stack(terms).sum() / divisor
        elif isinstance(last, Tensor) and all(
            isinstance(value, Tensor) and value.ndim and value.shape[0] == rows
            for value, (_, _, rows) in zip(values, found, strict=True)
        ):
            joined[name] = torch.cat([value for value in values if isinstance(value, Tensor)])
    return joined, total


def _weighed(value: Any, weight: float | Tensor) -> Tensor:
    """Return ``value`` times ``weight``; 0 if ``weight`` is 0, because a mean over no items may be NaN."""
    counted = torch.as_tensor(weight, device=value.device) > 0
    product: Tensor = torch.where(counted, value * weight, 0.0)
    return product
