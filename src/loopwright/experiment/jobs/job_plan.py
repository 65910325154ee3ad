"""The plan of a configuration, made before any trainer exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopwright.checkpoint import Checkpoint, read_entries, resolve, verify_checkpoint
from loopwright.data import Splits, as_source
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs import objects as build
from loopwright.experiment.jobs.rate_curve import learning_rate_course
from loopwright.experiment.jobs.settings import JobSettings, read_settings
from loopwright.hooks import ValidationCallback
from loopwright.loggers.lines import sizes_of
from loopwright.loop import LoopCallback, TrainingLoop, ValidationLoop
from loopwright.plan import Plan, describe, plan_fit, validation_batches
from loopwright.trainer.arguments import check_monitored, read_schedulers
from loopwright.trainer.dataloaders import name_dataloaders
from loopwright.trainer.resume import rest_of_run, saved_plan


@dataclass(frozen=True, slots=True)
class Counts:
    """What is known of a training dataloader.

    Args:
        batch_size: samples in a full micro-batch; None: unknown.
        num_samples: samples in a pass; None: unknown.
    """

    batch_size: int | None
    num_samples: int | None


def count_samples(dataloader: Any, num_micro_batches: int | None) -> Counts:
    """What a training dataloader with this many micro-batches a pass says of itself."""
    return Counts(*sizes_of(dataloader, num_micro_batches))


def job_plan(config: Mapping[str, Any], settings: JobSettings, loop: TrainingLoop, data: Splits, trust: Trust) -> Plan:
    """The plan of a fit by the settings of ``config``, from the beginning or from ``ckpt_path``.

    Raises:
        SettingError: if the settings do not fit the data, or not the run that is to go on.
        CheckpointError: if the checkpoint cannot be used.
    """
    checkpoint = None if settings.ckpt_path is None else _read_plan(settings.ckpt_path)
    saved = None if checkpoint is None else saved_plan(checkpoint)
    checkpointing = build.build_checkpointing(config.get("checkpoint"), trust)
    downstream = {
        callback.name or name: callback.every_n_vals
        for name, callback in build.build_callbacks(config, "callbacks", trust).items()
        if isinstance(callback, ValidationCallback)
    }
    plan = plan_fit(
        loop,
        as_source(data.train, 0, "train_dataloader").num_batches,
        val=_lengths(data),
        start_step=0 if saved is None else saved["start_step"],
        start_micro_batch=0 if saved is None else saved["start_micro_batch"],
        save_every=None if checkpointing is None else checkpointing.every_n_steps,
        save_last=checkpointing is not None,
        downstream=downstream,
    )
    check_monitored(read_schedulers(build.build_schedulers(config.get("scheduler"), trust)), plan)
    return plan if checkpoint is None or saved is None else rest_of_run(checkpoint, saved, plan)


def _read_plan(ckpt_path: str) -> Checkpoint:
    """What is needed of a checkpoint to plan the rest of its run; its tensors wait until they are used."""
    folder = resolve(ckpt_path)
    if folder == Path(ckpt_path):  # the newest of a run was verified when it was chosen
        verify_checkpoint(folder)
    return read_entries(folder, ["plan", "position"])


def describe_job(config: Mapping[str, Any], data: Splits, trust: Trust) -> tuple[str, Plan | None, Counts]:
    """The plan in words, the plan of a fit, and what is known of its data."""
    loop = build.build_loop(config["loop"], trust)
    if isinstance(loop, TrainingLoop):
        plan = job_plan(config, read_settings(config), loop, data, trust)
        counts = count_samples(data.train, plan.num_micro_batches)
        course = learning_rate_course(config, trust)(plan) if plan.total_steps else None
        counted = {"batch_size": counts.batch_size, "num_samples": counts.num_samples}
        return describe(plan, **counted, learning_rate=course), plan, counts
    return describe_validation(loop, data), None, Counts(None, None)


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
    loaders = name_dataloaders(data.val)
    return {name: as_source(loader, 0, "val_dataloader").num_batches for name, loader in loaders.items()}
