"""`GradientNorms`: logs the norms of the gradients of each layer or each parameter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from loopwright.errors import did_you_mean, refuse
from loopwright.hooks import Callback
from loopwright.sharded_tensors import whole_tensor

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from loopwright.trainer import Trainer

_KINDS = ("layer", "parameter")
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class GradientNorms(Callback):
    """Logs the L2 norms of the unclipped gradients at log steps as ``train/gradient_norm/<name>``.

    The norm of all gradients together is logged as ``train/gradient_norm``. If ``precision.max_gradient_norm`` is set,
    the trainer logs ``train/gradient_norm`` even without this callback.

    Args:
        per: "layer" for one norm for each layer, such as ``blocks.0`` and ``head``, see `layer_of`; "parameter" for one
            norm for each parameter.

    Raises:
        SettingError: if ``per`` is neither "layer" nor "parameter".
    """

    def __init__(self, per: Literal["layer", "parameter"] = "layer") -> None:
        if per not in _KINDS:
            raise refuse("per", per, " or ".join(_KINDS), did_you_mean(str(per), _KINDS).strip())
        self._per = per
        self._norms: dict[str, Tensor] = {}

    def logs(self, metric: str) -> bool:
        """Return whether ``metric`` is a norm of gradients."""
        return metric == "train/gradient_norm" or metric.startswith("train/gradient_norm/")

    def on_before_optimizer_step(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """At a log step, compute the norms on the device. Do not wait for the device."""
        if not trainer.is_log_step:
            return
        updated = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        norms: dict[str, list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and id(parameter) in updated:
                part = layer_of(name, model) if self._per == "layer" else name
                part = part.replace("_orig_mod.", "")  # the prefix of a model that torch.compile has wrapped
                norms.setdefault(f"train/gradient_norm/{part}", []).append(_norm(parameter.grad))
        self._norms = {name: _joined(each) for name, each in norms.items()}
        if norms and trainer.precision.max_gradient_norm is None:
            self._norms = {"train/gradient_norm": _joined(self._norms.values()), **self._norms}

    def on_train_batch_end(
        self, trainer: Trainer, model: nn.Module, outputs: dict[str, Any], batch: Any, batch_idx: int
    ) -> None:
        """Log the norms. ``global_step`` has already been incremented for this step."""
        if self._norms:
            trainer.log_metrics(**self._norms)
            self._norms = {}


def layer_of(parameter: str, model: nn.Module) -> str:
    """Return the name of the layer that contains a parameter.

    A container is an ``nn.Sequential``, ``nn.ModuleList`` or ``nn.ModuleDict``. The layer is the outermost submodule
    with the parameter that is an entry of a container or contains no container. Examples are ``decoder.blocks.0`` and
    ``decoder.norm``. If no submodule meets this condition, the parameter is its own layer.
    """
    module, parts = model, parameter.split(".")
    for end, part in enumerate(parts[:-1], start=1):
        is_in_container = isinstance(module, _CONTAINERS)
        module = module.get_submodule(part)
        if is_in_container or not any(isinstance(each, _CONTAINERS) for each in module.modules()):
            return ".".join(parts[:end])
    return parameter


def _norm(gradient: Tensor) -> Tensor:
    """Return the L2 norm of a gradient. The squares of 16-bit numbers are summed in float32."""
    dense = gradient.coalesce().values() if gradient.is_sparse else gradient
    is_short = dense.dtype in (torch.float16, torch.bfloat16)
    norm: Tensor = torch.linalg.vector_norm(dense, dtype=torch.float32 if is_short else None)
    return whole_tensor(norm)


def _joined(norms: Iterable[Tensor]) -> Tensor:
    """Return the L2 norm of several tensors together, computed from the norm of each tensor."""
    norms = [*norms]
    joined: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device, norms[0].dtype) for norm in norms]))
    return joined
