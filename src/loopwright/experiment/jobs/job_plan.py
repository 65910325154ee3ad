"""`JobPlan`, a description of what a job will do, and `plan_job`, which computes a `JobPlan` without a trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loopwright.checkpoint import Checkpoint, read_entries, resolve, verify_checkpoint
from loopwright.data import Splits, as_source
from loopwright.experiment.jobs.job_settings import JobSettings
from loopwright.experiment.jobs.objects import JobObjects
from loopwright.experiment.jobs.rate_curve import learning_rate_course
from loopwright.hooks import ValidationCallback
from loopwright.loggers.lines import plan_text, sizes_of
from loopwright.loop import LoopCallback, TrainingLoop, ValidationLoop
from loopwright.plan import Plan, plan_fit, validation_batches
from loopwright.trainer.arguments import check_monitored, read_schedulers
from loopwright.trainer.dataloaders import name_dataloaders
from loopwright.trainer.finished import with_last_validations
from loopwright.trainer.monitors import NamedMetric, check_named_metrics, named_metrics
from loopwright.trainer.resume import rest_of_run, saved_plan
from loopwright.trainer.scheduler_epochs import changed_epochs


@dataclass(frozen=True, slots=True)
class JobPlan:
    """Description of what a job will do, with the plan of its fit and the sizes of its training data.

    Attributes:
        text: description of the plan, which ``loopwright plan`` prints.
        plan: plan of the fit; None if the job only validates.
        batch_size: number of samples in a full micro-batch; None if unknown.
        num_samples: number of samples in one pass over the training data; None if unknown.
    """

    text: str
    plan: Plan | None = None
    batch_size: int | None = None
    num_samples: int | None = None


def plan_job(
    settings: JobSettings, objects: JobObjects, notes: Sequence[str] = (), *, has_own_outputs: bool = True
) -> JobPlan:
    """Describe what a job will do. Compute the plan of its fit, if it trains.

    Args:
        settings: checked top-level values of the configuration.
        objects: objects that were built for the job.
        notes: lines about the configuration. The plan lists these lines before the notes of `plan_fit`.
        has_own_outputs: whether the model may return outputs whose names contain a slash.

    Raises:
        SettingError: if the settings do not fit the data or the resumed checkpoint.
        CheckpointError: if the resumed checkpoint is missing or damaged, or was not saved during a fit.
    """
    loop, data = objects.loop, objects.data
    if not isinstance(loop, TrainingLoop):
        return JobPlan(describe_validation(loop, data))
    plan = _plan_fit(settings, objects, loop, has_own_outputs=has_own_outputs)
    plan = replace(plan, notes=(*notes, *plan.notes))
    batch_size, num_samples = sizes_of(data.train, plan.num_micro_batches)
    course = learning_rate_course(objects.optimizer, objects.schedulers)(plan) if plan.total_steps else None
    text = plan_text(plan, data.train, course, objects.callbacks.values())
    return JobPlan(text, plan, batch_size, num_samples)


def describe_validation(loop: LoopCallback, data: Splits) -> str:
    """Return a description of the plan of a validation loop."""
    assert isinstance(loop, ValidationLoop)
    lines = ["Plan: validate, train nothing"]
    for name, length in _lengths(data).items():
        num_batches = validation_batches(length, loop.eval_steps, name)
        of_all = "" if length is None else f" of {length:,}"
        lines.append(f"  {name}: {num_batches:,}{of_all} batches")
    return "\n".join(lines)


def _plan_fit(settings: JobSettings, objects: JobObjects, loop: TrainingLoop, *, has_own_outputs: bool) -> Plan:
    """Return the plan of a fit. For a resumed run, return only the stages of the plan after the checkpoint."""
    checkpoint = None if settings.ckpt_path is None else _read_plan(settings.ckpt_path)
    saved = None if checkpoint is None else saved_plan(checkpoint)
    checkpointing = objects.checkpointing
    downstream = {
        callback.name or name: callback.every_n_vals
        for name, callback in objects.callbacks.items()
        if isinstance(callback, ValidationCallback)
    }
    plan = plan_fit(
        loop,
        as_source(objects.data.train, 0, "train_dataloader").num_batches,
        val=_lengths(objects.data),
        start_step=0 if saved is None else saved["start_step"],
        start_micro_batch=0 if saved is None else saved["start_micro_batch"],
        save_every=None if checkpointing is None else checkpointing.every_n_steps,
        save_last=checkpointing is not None,
        downstream=downstream,
        save_at_validations=checkpointing is not None and checkpointing.at_validations,
        keep_every=None if checkpointing is None else checkpointing.keep_every,
    )
    specs = read_schedulers(objects.schedulers)
    check_monitored(specs, plan)
    callbacks = [(f"callbacks.{name}", callback) for name, callback in objects.callbacks.items()]
    named = [NamedMetric("objective", settings.objective), *named_metrics(checkpointing, specs, callbacks)]
    listeners = [loop, *objects.callbacks.values()]
    check_named_metrics(named, plan, listeners, has_own_outputs=has_own_outputs)
    if checkpoint is None or saved is None:
        return plan
    rest = rest_of_run(checkpoint, saved, plan, changed_epochs([factory for factory, _ in specs], saved, plan))
    return rest if with_last_validations(checkpoint, plan) is None else plan.finished()


def _read_plan(ckpt_path: str) -> Checkpoint:
    """Read the entries ``plan`` and ``position`` of a checkpoint. No tensor is loaded."""
    folder = resolve(ckpt_path)
    if folder == Path(ckpt_path):  # for a run directory, `resolve` has already verified the checkpoint
        verify_checkpoint(folder)
    return read_entries(folder, ["plan", "position"])


def _lengths(data: Splits) -> Mapping[str, int | None]:
    loaders = name_dataloaders(data.val)
    return {name: as_source(loader, 0, "val_dataloader").max_batches for name, loader in loaders.items()}
