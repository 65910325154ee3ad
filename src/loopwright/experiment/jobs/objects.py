"""Functions that build the objects of a configuration, such as the optimizer, and a `Trainer` with these objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from loopwright.checkpoint import Checkpointing
from loopwright.data import Loader, Splits, hash_content
from loopwright.device import Device
from loopwright.errors import SettingError, did_you_mean, refuse_type
from loopwright.experiment.gate.instantiate import factory, instantiate
from loopwright.experiment.gate.tree import PARTIAL, TARGET, is_target
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.job import Job
from loopwright.hooks import Callback, Logger
from loopwright.loop import LoopCallback
from loopwright.precision import Precision
from loopwright.seeding import RandomStreams, derive
from loopwright.trainer import Trainer
from loopwright.trainer.dataloaders import name_dataloaders

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobObjects:
    """The objects that one job passes to its trainer, except the model.

    Attributes:
        loop: training loop or validation loop.
        device: device on which the job computes.
        precision: floating-point dtype in which the job computes.
        checkpointing: schedule of the checkpoints; None: no checkpoints are saved.
        optimizer: callable that builds an optimizer for given parameters.
        schedulers: callables that build a scheduler for an optimizer, or mappings with ``scheduler`` and ``monitor``.
        callbacks: callbacks by name.
        loggers: loggers by name.
        data: dataloaders for training and validation, and facts about the data to record, such as a hash.
    """

    loop: LoopCallback
    device: Device
    precision: Precision
    checkpointing: Checkpointing | None
    optimizer: Any
    schedulers: Sequence[Any]
    callbacks: Mapping[str, Callback]
    loggers: Mapping[str, Logger]
    data: Splits


def build_objects(job: Job, trust: Trust) -> JobObjects:
    """Build the objects of a checked job that has a seed.

    Raises:
        SettingError: if a class or function named by a ``_target_`` refuses its arguments, or returns an object of a
            wrong class.
    """
    config = job.built_from
    return JobObjects(
        loop=build_loop(job, trust),
        device=build_device(job, trust),
        precision=build_precision(config.get("precision"), trust),
        checkpointing=build_checkpointing(config.get("checkpoint"), trust),
        optimizer=build_optimizer(config["optimizer"], trust),
        schedulers=build_schedulers(config.get("scheduler"), trust),
        callbacks=build_callbacks(config, "callbacks", trust),
        loggers=build_callbacks(config, "loggers", trust),
        data=build_data(job, trust),
    )


def make_trainer(
    job: Job,
    objects: JobObjects,
    trust: Trust,
    run_dir: Path | None,
    callbacks: Mapping[str, Callback] | None = None,
) -> Trainer:
    """Build the trainer of a job. The trainer builds the model, with random numbers from the trainer's streams.

    Args:
        job: checked job that has a seed.
        objects: loop, data, device and other objects of the job, from `build_objects`.
        trust: packages that the user trusts.
        run_dir: directory to which the run writes its files; None: the trainer writes no files and has no loggers.
        callbacks: additional callbacks by name.
    """
    make_model = factory(job.built_from["model"], trust, "model")
    device = objects.device
    if device.num_processes > 1:  # A trainer refuses this number unless it was started, as for a job that trains.
        device = replace(device, num_processes=1)
    return Trainer(
        model=cast(Callable[[], nn.Module], make_model),  # the trainer checks the class of the model
        optimizer=objects.optimizer,
        schedulers=objects.schedulers,
        loop=objects.loop,
        device=device,
        precision=objects.precision,
        checkpoint=None if run_dir is None else objects.checkpointing,
        callbacks={**objects.callbacks, **(callbacks or {})},
        loggers={} if run_dir is None else objects.loggers,
        log_every_n_steps=job.settings.log_every_n_steps,
        seed=job.settings.seed,
        run_dir=run_dir,
    )


def build_data(job: Job, trust: Trust) -> Splits:
    """Build the dataloaders of a job. Random numbers drawn by this function depend only on the seed of the job.

    The states of the process's random generators are restored afterwards.
    """
    assert job.settings.seed is not None, "settle() chooses a seed"
    with RandomStreams(derive(job.settings.seed, "build data")).active():
        splits = instantiate(job.built_from["data"], trust, "data")
    if not isinstance(splits, Splits):
        raise refuse_type("data", type(splits).__name__, "a _target_ that returns loopwright.data.Splits(train, val)")
    return splits


def named_splits(data: Splits) -> dict[str, Any]:
    """Return the dataloaders by name: ``train``, ``val`` or ``val/NAME``, and ``test`` or ``test/NAME``."""
    return {"train": data.train, **name_dataloaders(data.val), **name_dataloaders(data.test, "test")}


def choose_split(data: Splits, name: str) -> Any:
    """Return the dataloader that the option ``split`` names.

    Raises:
        SettingError: if the data have no such dataloader.
    """
    loaders = named_splits(data)
    within = [f"split={each}" for each in loaders if each.startswith(f"{name}/")]
    if name not in loaders and within:
        raise SettingError("split", f": expected one of the {len(within)} sets of {name}; use {' or '.join(within)}.")
    if name not in loaders:
        problem = (
            f"the data of this run have no such set. Available: {', '.join(loaders)}.{did_you_mean(name, loaders)}"
        )
        raise SettingError("split", f"={name!r}: {problem}")
    return loaders[name]


def facts_of(data: Splits) -> dict[str, str | int]:
    """Return ``data.facts`` and a SHA-256 of the data set of each dataloader, if `hash_content` returns a hash.

    Raises:
        DataError: for an image file that cannot be read.
    """
    loaders = named_splits(data)
    hashes = {name: hash_content(each.dataset) for name, each in loaders.items() if isinstance(each, Loader)}
    return {**{f"{name}_content_sha256": digest for name, digest in hashes.items() if digest}, **data.facts}


def build_loop(job: Job, trust: Trust) -> LoopCallback:
    """Return the `TrainingLoop` or `ValidationLoop` of a job. Build the loop if ``job.loop`` is None."""
    loop = instantiate(job.config["loop"], trust, "loop") if job.loop is None else job.loop
    if not isinstance(loop, LoopCallback):
        raise refuse_type("loop", type(loop).__name__, "a TrainingLoop or a ValidationLoop")
    return loop


def build_device(job: Job, trust: Trust) -> Device:
    """Return the `Device` of a job. Build the `Device` if ``job.device`` is None."""
    device = instantiate(job.config["device"], trust, "device") if job.device is None else job.device
    if not isinstance(device, Device):
        raise refuse_type("device", type(device).__name__, "a loopwright.device.Device")
    return device


def build_precision(node: Any, trust: Trust) -> Precision:
    """Build the `Precision` of a job. If ``node`` is None, return a `Precision` with default values."""
    if node is None:
        return Precision()
    precision = instantiate(node, trust, "precision")
    if not isinstance(precision, Precision):
        raise refuse_type("precision", type(precision).__name__, "a loopwright.Precision")
    return precision


def build_checkpointing(node: Any, trust: Trust) -> Checkpointing | None:
    """Build the `Checkpointing` of a job. If ``node`` is None, return None; the job then saves no checkpoints."""
    if node is None:
        return None
    checkpointing = instantiate(node, trust, "checkpoint")
    if not isinstance(checkpointing, Checkpointing):
        raise refuse_type("checkpoint", type(checkpointing).__name__, "a loopwright.Checkpointing, or null")
    return checkpointing


def build_optimizer(node: Any, trust: Trust) -> Any:
    """Return a callable that builds an optimizer for given parameters."""
    _check_partial(node, "optimizer", "the trainer passes the parameters and builds the optimizer")
    return instantiate(node, trust, "optimizer")


def build_schedulers(node: Any, trust: Trust) -> list[Any]:
    """Return callables that build schedulers for a given optimizer.

    For a scheduler that needs a metric, a mapping with ``scheduler`` and ``monitor`` is returned instead of a callable.
    ``node`` describes one scheduler or a list of schedulers. If ``node`` is None, the result is empty.
    """
    if node is None:
        return []
    if not isinstance(node, list):
        return [_build_scheduler(node, trust, "scheduler")]
    return [_build_scheduler(entry, trust, f"scheduler[{i}]") for i, entry in enumerate(node)]


def build_callbacks(config: Config, section: str, trust: Trust) -> dict[str, Any]:
    """Build the callbacks or loggers of a section, and return them by name. A name with the value null is left out."""
    node = config.get(section)
    if node is None:
        return {}
    if not isinstance(node, dict) or TARGET in node:
        raise refuse_type(section, type(node).__name__, "a mapping of names to callbacks, or null")
    built = {}
    for name, entry in node.items():
        if entry is None:
            continue
        callback = instantiate(entry, trust, f"{section}.{name}")
        if not isinstance(callback, Callback):
            raise refuse_type(f"{section}.{name}", type(callback).__name__, "a loopwright.Callback, or null")
        built[str(name)] = callback
    return built


def _build_scheduler(node: Any, trust: Trust, path: str) -> Any:
    remedy = "the trainer passes the optimizer and builds the scheduler"
    if isinstance(node, dict) and TARGET not in node:
        if node.keys() != {"scheduler", "monitor"}:
            raise SettingError(path, ": expected a _target_, or the two keys scheduler and monitor.")
        if not isinstance(node["monitor"], str):
            raise refuse_type(f"{path}.monitor", node["monitor"], "the name of a metric, such as val/loss")
        _check_partial(node["scheduler"], f"{path}.scheduler", remedy)
        return {"scheduler": instantiate(node["scheduler"], trust, f"{path}.scheduler"), "monitor": node["monitor"]}
    _check_partial(node, path, remedy)
    return instantiate(node, trust, path)


def _check_partial(node: Any, path: str, reason: str) -> None:
    if not is_target(node):
        raise SettingError(path, ": expected a mapping with a _target_.")
    if node.get(PARTIAL) is not True:
        raise SettingError(f"{path}.{PARTIAL}", f": expected true; {reason}.")
