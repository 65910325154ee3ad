"""The plan of a configuration, made before any trainer exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loopwright.data import Splits, as_source
from loopwright.engine.inputs import name_dataloaders
from loopwright.errors import SettingError
from loopwright.experiment import build
from loopwright.experiment.gate.trust import Trust
from loopwright.hooks import ValidationCallback
from loopwright.loop import LoopCallback, TrainingLoop, ValidationLoop
from loopwright.plan import Plan, describe, plan_fit, validation_batches


@dataclass(frozen=True, slots=True)
class Counts:
    """What is known of a training dataloader.

    Args:
        batch_size: samples in a full micro-batch; None: unknown.
        num_samples: samples in a pass; None: unknown.
    """

    batch_size: int | None
    num_samples: int | None


def count_samples(dataloader: Any) -> Counts:
    """What a dataloader says of itself, in the attributes that torch's own has."""
    batch_size = getattr(dataloader, "batch_size", None)
    try:
        num_samples = len(dataloader.dataset)
    except (AttributeError, TypeError, NotImplementedError):
        num_samples = None
    if getattr(dataloader, "drop_last", False):
        num_samples = None
    return Counts(batch_size if isinstance(batch_size, int) else None, num_samples)


def job_plan(config: Mapping[str, Any], loop: TrainingLoop, data: Splits, trust: Trust) -> Plan:
    """The plan of a fit from the beginning, by the settings of ``config``.

    Raises:
        SettingError: if the settings do not fit the data.
    """
    checkpointing = build.build_checkpointing(config.get("checkpoint"), trust)
    downstream = {
        callback.name or name: callback.every_n_vals
        for name, callback in build.build_callbacks(config, "callbacks", trust).items()
        if isinstance(callback, ValidationCallback)
    }
    try:
        return plan_fit(
            loop,
            as_source(data.train, 0).num_batches,
            val=_lengths(data),
            save_every=None if checkpointing is None else checkpointing.every_n_steps,
            save_last=checkpointing is not None,
            downstream=downstream,
        )
    except SettingError as error:
        raise error.under("loop") from None


def describe_job(config: Mapping[str, Any], trust: Trust) -> tuple[str, Plan | None, Counts]:
    """The plan in words, the plan of a fit, and what is known of its data."""
    loop = build.build_loop(config["loop"], trust)
    data = build.build_data(config["data"], trust)
    counts = count_samples(data.train)
    if isinstance(loop, TrainingLoop):
        plan = job_plan(config, loop, data, trust)
        return describe(plan, batch_size=counts.batch_size, num_samples=counts.num_samples), plan, counts
    return describe_validation(loop, data), None, counts


def describe_validation(loop: LoopCallback, data: Splits) -> str:
    """What a validation loop does, in words."""
    assert isinstance(loop, ValidationLoop)
    lines = ["Plan: validate, train nothing"]
    for name, length in _lengths(data).items():
        num_batches = validation_batches(length, loop.eval_steps, name)
        of_all = "" if length is None else f" of {length:,}"
        lines.append(f"  {name}: {num_batches:,}{of_all} batches")
    return "\n".join(lines)


def _lengths(data: Splits) -> dict[str, int | None]:
    return {name: as_source(loader, 0).num_batches for name, loader in name_dataloaders(data.val).items()}
