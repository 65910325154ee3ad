"""`count_flops`: counts the floating-point operations (FLOPs) of one forward and backward.

The model runs on fake tensors, which have shapes and dtypes but no values. The count therefore needs little time and
memory. A model that reads the values of tensors cannot run on fake tensors. Such a model runs on the real micro-batch.

The count does not change the run. The random streams, the buffers and the attributes of all modules are restored, and
no gradient is stored. Hooks of callbacks are not called. Hooks that the user has registered on modules are called.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode  # torch documents this class, but does not export it
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from loopwright.engine.dry_pass import NO_HOOKS, restored
from loopwright.engine.forward import Forward
from loopwright.engine.parts import Parts
from loopwright.precision import map_tensors


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    return sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]  # no annotations in torch


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    return sdpa_backward_flop_count(gradient, query, key, value)  # type: ignore[no-untyped-call]  # no annotations


# FLOP formulas of the CPU attention kernels, which torch 2.13 does not count. The formulas receive shapes, not tensors.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def count_flops(parts: Parts, batch: Any) -> int:
    """Return the number of FLOPs of one forward and backward of the model on a training micro-batch.

    One multiplication and one addition count as two FLOPs. Only matrix products, convolutions and attention are
    counted. Causal attention is counted like attention without a mask.

    Args:
        parts: model, device and other objects of this run. Lazy modules of the model must already have shapes.
        batch: a micro-batch on the device.
    """
    with parts.clock.paused(), parts.streams.branch("flops", parts.state.global_step), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the training step on this micro-batch has already issued these warnings
        try:
            with restored(parts.model):
                return _count_on_fakes(parts, batch)
        except Exception:  # noqa: BLE001  (a model that reads values may raise any error on fake tensors)
            pass
        with restored(parts.model):
            return _count(parts, parts.strategy.evaluate, batch, parts.model.parameters())


def _count_on_fakes(parts: Parts, batch: Any) -> int:
    mode, model = FakeTensorMode(allow_non_fake_inputs=True), parts.model

    def fake(value: Any) -> Any:
        return mode.from_tensor(value) if isinstance(value, Tensor) else value

    parameters = {name: fake(parameter) for name, parameter in model.named_parameters()}
    weights = {**parameters, **{name: fake(buffer) for name, buffer in model.named_buffers()}}

    def call(*args: Any, **kwargs: Any) -> Any:
        return functional_call(model, weights, args, kwargs)

    with mode:
        return _count(parts, call, map_tensors(batch, fake), parameters.values())


def _count(parts: Parts, call: Callable[..., Any], batch: Any, parameters: Iterable[Tensor]) -> int:
    forward = Forward(replace(parts, hooks={**parts.hooks, **NO_HOOKS}), call)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        torch.autograd.grad(forward(batch)["loss"], trained, allow_unused=True)
    return int(counter.get_total_flops())
