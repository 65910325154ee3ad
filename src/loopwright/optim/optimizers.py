"""SGD, Adam and AdamW of torch, with groups by parameter names and with the kind of their step said.

A step computes the same in three kinds. ``for_loop`` takes parameter by parameter, ``foreach`` many at once, ``fused``
all of it in one kernel. On the CPU the first two agree bitwise, and the loop is the fastest for small models; ``fused``
rounds differently. So ``auto`` never chooses ``fused``: it is the loop on the CPU (and on mps, which lacks ``foreach``)
and ``foreach``, torch's own default, elsewhere. The kind is written into the parameter groups, and with them into
checkpoints: a run that is resumed goes on in the kind that it began with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from loopwright.errors import refuse, refuse_type
from loopwright.optim.groups import group_parameters

Kind = Literal["auto", "for_loop", "foreach", "fused"]

# Devices where torch has no kernels that take many parameters at once.
_WITHOUT_FOREACH = frozenset({"cpu", "mps"})

# Arguments that need the names of a model: left out where an optimizer is tried on a parameter without one.
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
    """Make torch's `SGD` with groups by name.

    Args:
        named_parameters: (name, parameter); the trainer gives those of the model.
        lr: learning rate.
        momentum: fraction of the last update that is kept.
        weight_decay: L2 penalty.
        nesterov: whether momentum looks ahead.
        without_decay: patterns of the names of parameters without weight decay, as for `group_parameters`.
        rate_factors: pattern → factor of ``lr``; the first that matches is taken.
        kind: of the step; "auto" is "for_loop" on the CPU and "foreach" elsewhere.

    Raises:
        SettingError: for a pattern that matches no parameter, or a kind that does not go with the parameters.
        ValueError: for what torch refuses.
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
    """Make torch's `Adam` with groups by name.

    Args:
        named_parameters: as for `sgd`, like those not named here.
        lr: learning rate.
        betas: decay per step of the averages of gradients and of their squares.
        eps: added to the root of the average square.
        weight_decay: L2 penalty.
        without_decay: patterns of the names of parameters without weight decay.
        rate_factors: pattern → factor of ``lr``.
        kind: of the step.

    Raises:
        SettingError: as for `sgd`.
        ValueError: for what torch refuses.
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
    """Make torch's `AdamW` with groups by name.

    Args:
        named_parameters: as for `sgd`, like those not named here.
        lr: learning rate.
        betas: decay per step of the averages of gradients and of their squares.
        eps: added to the root of the average square.
        weight_decay: fraction of the weights, times the learning rate, that is taken off at each step.
        without_decay: patterns of the names of parameters without weight decay.
        rate_factors: pattern → factor of ``lr``.
        kind: of the step.

    Raises:
        SettingError: as for `sgd`.
        ValueError: for what torch refuses.
    """
    groups = group_parameters(named_parameters, lr, weight_decay, without_decay, rate_factors)
    flags = _flags(kind, groups)
    return AdamW(groups, lr=lr, betas=_pair(betas), eps=eps, weight_decay=weight_decay, **flags)


def kind_of(group: Mapping[str, Any]) -> str:
    """The kind of step that a parameter group of any torch optimizer asks for; "default" leaves it to torch."""
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
        raise refuse("kind", kind, "another kind: fused steps are for real floating-point parameters", "use auto")
    return {"foreach": kind == "foreach", "fused": kind == "fused"}


def _pair(betas: Sequence[float]) -> tuple[float, float]:
    """A list, as configurations have it, as torch wants it; torch checks the values."""
    is_list = isinstance(betas, Sequence) and not isinstance(betas, str)
    if not is_list or len(betas) != 2 or not all(isinstance(beta, int | float) for beta in betas):
        raise refuse_type("betas", betas, "a list of two numbers in [0, 1), such as [0.9, 0.999]")
    beta1, beta2 = betas
    return beta1, beta2
