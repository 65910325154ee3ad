"""`own_gradient_square`: computes the gradient of one micro-batch in this process, without changing the run.

The forward and the backward use the same dtypes as a training step, but separate random streams. The random streams,
the buffers and the attributes of all modules are restored. The attribute ``grad`` of the parameters is not changed. The
processes do not communicate. Hooks of callbacks are not called.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from loopwright.batch_rows import count_rows, select_rows
from loopwright.engine.dry_pass import NO_HOOKS, restored
from loopwright.engine.forward import Forward
from loopwright.engine.parts import Parts
from loopwright.engine.weighting import given_items


def own_gradient_square(
    parts: Parts, batch: Any, num_items: float, parameters: Sequence[Tensor]
) -> tuple[float, float]:
    """Return the squared L2 norm of the gradient of the loss of a micro-batch, and its number of items.

    The time is not included in the training time. If memory ran out, and the trainer computes a micro-batch in several
    parts, only the first part is used.

    Args:
        parts: objects of this run, inside a fit.
        batch: a micro-batch on the device.
        num_items: number of items in ``batch``.
        parameters: parameters for which the gradient is computed.
    """
    part = batch
    if parts.state.num_parts > 1 and (num_rows := count_rows(batch)) is not None:
        size = -(-num_rows // parts.state.num_parts)
        part, num_items = select_rows(batch, slice(size)), num_items * size / num_rows
    key = ("own gradient", parts.state.global_step, parts.strategy.ranks.rank)
    with parts.clock.paused(), parts.streams.branch(*key), restored(parts.model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the training step on this micro-batch has already issued these warnings
        outputs = Forward(replace(parts, hooks={**parts.hooks, **NO_HOOKS}), parts.strategy.evaluate)(part)
        if part is not batch and outputs.get("num_items") is not None:
            num_items = float(given_items(outputs))
        trained = [each for each in parameters if each.requires_grad]
        loss, scale = outputs["loss"], 1.0
        if parts.scaling is not None:  # scaled like in a training step, so that small gradients do not become 0
            scale = parts.scaling.value * num_items
            loss = loss * scale
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
        return square_of(each for each in gradients if each is not None) / scale**2, num_items


def square_of(gradients: Iterable[Tensor]) -> float:
    """Return the squared L2 norm of all gradients together. Waits for the device."""
    dense = [each.coalesce().values() if each.is_sparse else each for each in gradients]
    norms = [torch.linalg.vector_norm(each, dtype=_wide(each)) for each in dense]
    if not norms:
        return 0.0
    together = torch.stack([each.to(norms[0].device, norms[0].dtype) for each in norms])
    return float(sum(norm**2 for norm in together.tolist()))


def _wide(gradient: Tensor) -> torch.dtype | None:
    """Return the dtype in which squares are summed: float32 for 16-bit numbers."""
    return torch.float32 if gradient.dtype in (torch.float16, torch.bfloat16) else None
