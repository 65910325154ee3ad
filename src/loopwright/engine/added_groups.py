"""Functions that extend schedulers to parameter groups added during a fit, and restore these groups on resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR
from torch.optim.swa_utils import SWALR

from loopwright.engine.state import loading
from loopwright.engine.state_check import check_form
from loopwright.errors import SettingError

# Scheduler classes, each with the entries that the scheduler reads from a parameter group besides ``lr``.
_NEED_ENTRIES = ((OneCycleLR, ("initial_lr", "max_lr", "min_lr")), (SWALR, ("initial_lr", "swa_lr")))


def adopt_groups(optimizer: Optimizer, schedulers: Sequence[Any]) -> None:
    """Extend schedulers to the parameter groups that were added to the optimizer after the schedulers were built.

    The ``lr`` of an added group without ``initial_lr`` is the learning rate for the start of the schedule. This
    function stores this rate as ``initial_lr``. It then multiplies ``lr`` by ``lr / initial_lr`` of the first group. If
    an added group has an ``initial_lr``, its ``lr`` is the current learning rate and does not change.

    Raises:
        SettingError: if a scheduler has a setting for each group, and the setting for the added group is unknown.
    """
    groups = optimizer.param_groups
    waiting = [each for each in _with_base_rates(schedulers) if len(each.base_lrs) < len(groups)]
    if not waiting:
        return
    for scheduler in waiting:
        _check_extends(scheduler, groups[len(scheduler.base_lrs) :])
    first = groups[0]
    for group in groups:
        if "initial_lr" not in group:
            rate = group["lr"]
            if isinstance(rate, Tensor):  # may be the tensor of the first group, which a scheduler changes in place
                rate = (first["initial_lr"] if rate is first["lr"] and group is not first else rate).clone()
            group["initial_lr"] = rate
            group["lr"] = rate * (first["lr"] / first["initial_lr"]) if first["initial_lr"] else rate * 1
    for scheduler in waiting:
        added = groups[len(scheduler.base_lrs) :]
        scheduler.base_lrs.extend(group["initial_lr"] for group in added)
        if hasattr(scheduler, "lr_lambdas"):
            scheduler.lr_lambdas.extend(scheduler.lr_lambdas[0] for _ in added)


def drop_groups(optimizer: Optimizer, schedulers: Sequence[Any], num_groups: int) -> None:
    """Remove the parameter groups after the first ``num_groups`` from the optimizer and its schedulers."""
    del optimizer.param_groups[num_groups:]
    for scheduler in _with_base_rates(schedulers):
        del scheduler.base_lrs[num_groups:]
        if hasattr(scheduler, "lr_lambdas"):
            del scheduler.lr_lambdas[num_groups:]


def add_saved_groups(
    optimizer: Optimizer, names: list[list[str]], parameters: Mapping[str, nn.Parameter], saved: Mapping[str, Any]
) -> None:
    """Add the parameter groups that a checkpoint has in addition to the groups of this run.

    No group is added if the first groups of the checkpoint have other parameters than the groups of this run. No group
    is added either if a further group is empty, or has parameters that the model lacks or that another group contains.
    In these cases, `check_fit_state` refuses the checkpoint later.

    Args:
        optimizer: optimizer of this run.
        names: names of the parameters in each group of ``optimizer``.
        parameters: parameters of the model by name.
        saved: state of the checkpoint.

    Raises:
        CheckpointError: if a saved group has entries of the wrong form, or if the optimizer rejects a saved group.
    """
    num_groups, saved_names = len(names), saved.get("parameters")
    if not isinstance(saved_names, list) or saved_names[:num_groups] != names:
        return
    used = {name for group in names for name in group}
    added = saved_names[num_groups:]
    flat = [name for group in added if isinstance(group, list) for name in group]
    is_known = all(isinstance(name, str) and name in parameters and name not in used for name in flat)
    if not all(isinstance(group, list) and group for group in added) or not is_known or len({*flat}) < len(flat):
        return
    options = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    groups = [None] * num_groups + [{**options, "*": None}] * len(added)
    check_form({"optimizer": {"param_groups": groups, "*": None}}, saved)
    for group_names, group in zip(added, saved["optimizer"]["param_groups"][num_groups:], strict=True):
        with loading("optimizer", "a parameter group cannot be added"):
            optimizer.add_param_group({**group, "params": [parameters[name] for name in group_names]})


def _with_base_rates(schedulers: Sequence[Any]) -> Iterator[Any]:
    """Yield the schedulers with ``base_lrs``, including those inside a `SequentialLR` or `ChainedScheduler`."""
    for scheduler in schedulers:
        if isinstance(getattr(scheduler, "base_lrs", None), list):
            yield scheduler
        yield from _with_base_rates(getattr(scheduler, "_schedulers", ()))  # torch has no public name for this list


def _check_extends(scheduler: Any, added: Sequence[Mapping[str, Any]]) -> None:
    name = type(scheduler).__name__
    problem = f"={name}(…): a parameter group was added during the fit, and"
    remedy = "give all groups to the optimizer before the fit, the later ones with requires_grad=False parameters"
    if isinstance(scheduler, CyclicLR):
        raise SettingError("schedulers", f"{problem} {name} has other rates for each group; {remedy}.")
    for kind, entries in _NEED_ENTRIES:
        missing = [entry for group in added for entry in entries if entry not in group]
        if isinstance(scheduler, kind) and missing:
            expected = f"expected {', '.join(entries)} in the added group; {missing[0]} is missing"
            raise SettingError("schedulers", f"{problem} {name} needs more than its lr: {expected}.")
    functions: Sequence[Any] = getattr(scheduler, "lr_lambdas", ())
    if any(each is not functions[0] for each in functions):
        raise SettingError("schedulers", f"{problem} {name} has another function for each group; {remedy}.")
