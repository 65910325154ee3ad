"""Functions that build torch's SGD, Adam and AdamW with parameter groups chosen by name.

The argument ``kind`` selects one of torch's three implementations of the optimizer step. ``for_loop`` updates one
parameter at a time, ``foreach`` updates many tensors in one call, and ``fused`` computes the whole step in one
kernel. On the CPU, ``for_loop`` and ``foreach`` give bitwise equal results, and ``for_loop`` is the fastest for small
models. ``fused`` rounds differently, so ``auto`` never selects ``fused``. ``auto`` selects ``for_loop`` on the CPU and
on MPS, which has no ``foreach``. On other devices ``auto`` selects ``foreach``, which is torch's default.

The kind is stored in the parameter groups and therefore in checkpoints. A resumed run keeps the kind of its first fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from loopwright.errors import refuse, refuse_type
from loopwright.optim.groups import group_parameters

Kind = Literal["auto", "for_loop", "foreach", "fused"]

# Device types for which torch has no kernels that update many tensors in one call.
_WITHOUT_FOREACH = frozenset({"cpu", "mps"})

# Arguments that refer to a model's parameter names. They are omitted when settings are checked without a model.
NAME_ARGUMENTS = ("without_decay", "rate_factors")


def sgd(
    named_parameters: Iterable[tuple[str, Tensor]],
    lr: float = 0.001,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    without_decay: Sequence[str] = (),
    rate_factors: Mapping[str, float] | None = None,
    kind: Kind = "auto",
) -> SGD:
    """Build torch's `SGD` with parameter groups chosen by name.

    Args:
        named_parameters: (name, parameter) pairs; the trainer passes the model's named parameters.
        lr: learning rate.
        momentum: momentum factor, 0 or more.
        weight_decay: coefficient of the L2 penalty.
        nesterov: whether to use Nesterov momentum.
        without_decay: name patterns of the parameters that get no weight decay, as for `group_parameters`.
        rate_factors: mapping from a name pattern to a factor of ``lr``; the first matching pattern applies.
        kind: implementation of the step; "auto" is "for_loop" on the CPU and on MPS, and "foreach" elsewhere.

    Raises:
        SettingError: if a pattern matches no parameter, or if ``kind`` is unknown or does not support the parameters.
        ValueError: if torch refuses a value.
    """
    groups = group_parameters(named_parameters, lr, weight_decay, without_decay, rate_factors)
    flags = _flags(kind, groups)
    return SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, **flags)


def adam(
    named_parameters: Iterable[tuple[str, Tensor]],
    lr: float = 0.001,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    without_decay: Sequence[str] = (),
    rate_factors: Mapping[str, float] | None = None,
    kind: Kind = "auto",
) -> Adam:
    """Build torch's `Adam` with parameter groups chosen by name.

    Args:
        named_parameters: (name, parameter) pairs, as for `sgd`.
        lr: learning rate.
        betas: decay rates of the moving averages of the gradient and of the squared gradient.
        eps: term added to the denominator of the update.
        weight_decay: coefficient of the L2 penalty.
        without_decay: name patterns of the parameters that get no weight decay, as for `sgd`.
        rate_factors: mapping from a name pattern to a factor of ``lr``, as for `sgd`.
        kind: implementation of the step, as for `sgd`.

    Raises:
        SettingError: as for `sgd`, or if ``betas`` is not a list of two numbers.
        ValueError: if torch refuses a value.
    """
    groups = group_parameters(named_parameters, lr, weight_decay, without_decay, rate_factors)
    flags = _flags(kind, groups)
    return Adam(groups, lr=lr, betas=_pair(betas), eps=eps, weight_decay=weight_decay, **flags)


def adamw(
    named_parameters: Iterable[tuple[str, Tensor]],
    lr: float = 0.001,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    without_decay: Sequence[str] = (),
    rate_factors: Mapping[str, float] | None = None,
    kind: Kind = "auto",
) -> AdamW:
    """Build torch's `AdamW` with parameter groups chosen by name.

    Args:
        named_parameters: (name, parameter) pairs, as for `sgd`.
        lr: learning rate.
        betas: decay rates of the moving averages of the gradient and of the squared gradient.
        eps: term added to the denominator of the update.
        weight_decay: decoupled weight decay; each step multiplies the weights by ``1 - lr * weight_decay``.
        without_decay: name patterns of the parameters that get no weight decay, as for `sgd`.
        rate_factors: mapping from a name pattern to a factor of ``lr``, as for `sgd`.
        kind: implementation of the step, as for `sgd`.

    Raises:
        SettingError: as for `sgd`, or if ``betas`` is not a list of two numbers.
        ValueError: if torch refuses a value.
    """
    groups = group_parameters(named_parameters, lr, weight_decay, without_decay, rate_factors)
    flags = _flags(kind, groups)
    return AdamW(groups, lr=lr, betas=_pair(betas), eps=eps, weight_decay=weight_decay, **flags)


def kind_of(group: Mapping[str, Any]) -> str:
    """Return the kind of a parameter group of any torch optimizer; "default" if the group specifies none."""
    if group.get("fused"):
        return "fused"
    if group.get("foreach") is None:
        return "default"
    return "foreach" if group["foreach"] else "for_loop"


def _flags(kind: Kind, groups: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    if kind not in ("auto", "for_loop", "foreach", "fused"):
        raise refuse("kind", kind, "auto, for_loop, foreach or fused")
    parameters = [parameter for group in groups for parameter in group["params"]]
    if kind == "auto":
        kind = "for_loop" if all(each.device.type in _WITHOUT_FOREACH for each in parameters) else "foreach"
    if kind == "fused" and not all(each.is_floating_point() for each in parameters):
        raise refuse("kind", kind, "another kind; fused supports only real floating-point parameters", "use auto")
    return {"foreach": kind == "foreach", "fused": kind == "fused"}


def _pair(betas: Sequence[float]) -> tuple[float, float]:
    """Convert ``betas`` to a tuple, which torch expects. Configurations contain a list. Torch checks the range."""
    is_list = isinstance(betas, Sequence) and not isinstance(betas, str)
    if not is_list or len(betas) != 2 or not all(isinstance(beta, int | float) for beta in betas):
        raise refuse_type("betas", betas, "a list of two numbers in [0, 1), such as [0.9, 0.999]")
    beta1, beta2 = betas
    return beta1, beta2
