"""Every job is checked before the first one starts: names, targets, arguments, and all that is cheap to build."""

from __future__ import annotations

import glob
import inspect
import json
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from loopwright.data import Splits
from loopwright.device import open_device
from loopwright.errors import CheckpointError, SettingError
from loopwright.experiment.gate.allow import NEEDS
from loopwright.experiment.gate.call_arguments import check_arguments
from loopwright.experiment.gate.instantiate import instantiate
from loopwright.experiment.gate.tree import TARGET, walk
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs import objects as build
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.job_plan import describe_job
from loopwright.experiment.jobs.model_check import check_takes
from loopwright.experiment.jobs.rate_curve import sketch_optimizer
from loopwright.experiment.jobs.recorded import RESUMED_SECTIONS, run_differences
from loopwright.loop import TrainingLoop
from loopwright.optim import NAME_ARGUMENTS
from loopwright.trainer.arguments import make_optimizer

# What a plan, and the learning rates shown with it, are made from, besides the data.
_PLANNED = ("loop", "optimizer", "scheduler")


def check_jobs(jobs: Sequence[Job], trust: Trust) -> None:
    """Refuse what would fail: arguments, values, devices, missing checkpoints, plans, models unfit for their data.

    Models and data of Loopwright's own are built (a model without its weights); those of trusted packages are left
    to their job, since they may take long or load much. Sections that jobs share are built once.

    Raises:
        SettingError: for the first job at fault; of several jobs it is named.
        CheckpointError: for a checkpoint or pattern that leads to nothing.
    """
    seen: set[str] = set()
    kept: dict[str, Splits] = {}
    for job in jobs:
        try:
            _check_job(job, trust, seen, kept)
        except SettingError as error:
            if len(jobs) == 1:
                raise
            raise SettingError(error.setting, f"{error.problem} (job {job.number}: {job.label})") from None


def _check_job(job: Job, trust: Trust, seen: set[str], kept: dict[str, Splits]) -> None:
    config = job.config
    check_arguments(config, trust)
    _check_installed(config)
    loop = build.build_loop(config["loop"], trust)
    _check_paths(job, is_training=isinstance(loop, TrainingLoop))
    for section in ("device", "precision", "checkpoint", "callbacks", "loggers", "optimizer", "scheduler", "model"):
        if _is_new(section, config, seen):
            _check_section(section, config, trust)
    if not _is_ours(config["data"]) or not _is_ours(config.get("callbacks")):
        return  # a callback may change batches before the model takes them
    if _is_new("data", config, seen, also=_PLANNED):
        describe_job(config, _data_of(config, trust, kept), trust)
    if _is_ours(config["model"]) and _is_new("data", config, seen, also=("model",)):
        check_takes(_weightless(config["model"], trust), _data_of(config, trust, kept))


def _data_of(config: Mapping[str, Any], trust: Trust, kept: dict[str, Splits]) -> Splits:
    """The data of a job; those of the last one are kept, and one set alone, for large ones would fill the memory."""
    key = json.dumps(config["data"], sort_keys=True)
    if key not in kept:
        kept.clear()
        kept[key] = build.build_data(config["data"], trust)
    return kept[key]


def _check_installed(config: Mapping[str, Any]) -> None:
    for path, node in walk(dict(config)):
        target = node.get(TARGET) if isinstance(node, dict) else None
        package, extra = NEEDS.get(str(target), (None, None))
        if package is not None and find_spec(package) is None:
            problem = f"={target!r}: needs {package}, which is not installed; pip install 'loopwright[{extra}]'."
            raise SettingError(f"{path}.{TARGET}", problem)


def _is_new(section: str, config: Mapping[str, Any], seen: set[str], also: Sequence[str] = ()) -> bool:
    """Whether this section, with those it is checked with, has not been checked in an earlier job."""
    also = {"scheduler": ("optimizer",), "optimizer": ("model",)}.get(section, also)
    key = json.dumps([section, *(config.get(name) for name in (section, *also))], sort_keys=True)
    is_new = key not in seen
    seen.add(key)
    return is_new


def _check_section(section: str, config: Mapping[str, Any], trust: Trust) -> None:
    node = config.get(section)
    if section == "device":
        device = build.build_device(node, trust)
        try:
            open_device(device)
        except SettingError as error:
            raise SettingError("device.kind", error.problem) from None
    elif section == "precision":
        build.build_precision(node, trust)
    elif section == "checkpoint":
        build.build_checkpointing(node, trust)
    elif section in ("callbacks", "loggers"):
        if _is_ours(node):
            build.build_callbacks(config, section, trust)
    elif section == "optimizer":
        _check_optimizer(config, trust)
    elif section == "scheduler":
        _build_dummy_schedulers(config, trust)
    elif section == "model" and _is_ours(node):
        _weightless(node, trust)


def _check_optimizer(config: Mapping[str, Any], trust: Trust) -> None:
    """Torch's own checks of a learning rate and its kin; and that name patterns match parameters of the model."""
    sketch_optimizer(config["optimizer"], trust)
    has_patterns = any(config["optimizer"].get(name) for name in NAME_ARGUMENTS)
    if has_patterns and _is_ours(config["model"]):
        try:
            make_optimizer(build.build_optimizer(config["optimizer"], trust), _weightless(config["model"], trust))
        except SettingError as error:
            raise error.under("optimizer") from None


def _weightless(node: Any, trust: Trust) -> nn.Module:
    """The model without its weights."""
    with torch.device("meta"):
        model = instantiate(node, trust, "model")
    if not isinstance(model, nn.Module):
        raise SettingError("model", f": expected a torch.nn.Module; its target returned {type(model).__name__}.")
    return model


def _build_dummy_schedulers(config: Mapping[str, Any], trust: Trust) -> None:
    for make in build.build_schedulers(config.get("scheduler"), trust):
        factory = make["scheduler"] if isinstance(make, dict) else make
        optimizer = sketch_optimizer(config["optimizer"], trust)
        arguments: dict[str, Any] = {}
        if "total_steps" in inspect.signature(factory).parameters and "total_steps" not in factory.keywords:
            # The real number is the plan's. Large, so that only what is wrong for every run is refused here.
            arguments["total_steps"] = 10**9
        try:
            factory(optimizer, **arguments)
        except SettingError as error:
            raise error.under("scheduler") from None
        except (ValueError, TypeError) as error:
            raise SettingError("scheduler", f": {error}") from None


def _check_paths(job: Job, *, is_training: bool) -> None:
    settings = job.settings
    if is_training and settings.ckpt_paths is not None:
        raise SettingError("ckpt_paths", ": only validations take many checkpoints; add loop=validation.")
    if not is_training and settings.init_from is not None:
        raise SettingError("init_from", ": a validation starts from ckpt_path; use ckpt_path=… in its place.")
    given = settings.ckpt_paths or settings.ckpt_path or settings.init_from or []
    for path in [given] if isinstance(given, str) else given:
        if not os.path.lexists(path) and not (settings.ckpt_paths and glob.glob(path, recursive=True)):
            setting = "init_from" if settings.init_from else "ckpt_paths" if settings.ckpt_paths else "ckpt_path"
            raise CheckpointError(f"{setting}={path!r}: no such checkpoint or run directory.")
        if settings.init_from is None and os.path.isdir(path):
            _check_same_run(job, path, is_training=is_training)


def _check_same_run(job: Job, path: str, *, is_training: bool) -> None:
    found = run_differences(Path(path), job.config, RESUMED_SECTIONS if is_training else ("model",))
    if found is None:
        return
    run_dir, differences = found
    remedy = f"loopwright validate {run_dir} uses the one it recorded"
    if is_training:
        remedy = f"a run goes on as it was begun; init_from begins a new one with its weights, {remedy}"
    what = "was run otherwise" if is_training else "had another model"
    raise SettingError("ckpt_path", f"={path!r}: its run {what} ({'; '.join(differences)}); {remedy}.")


def _is_ours(node: Any) -> bool:
    """Whether a section names nothing but Loopwright's and torch's own."""
    targets = [entry[TARGET] for _, entry in walk(node) if isinstance(entry, dict) and TARGET in entry]
    return all(isinstance(name, str) and name.startswith(("loopwright.", "torch.")) for name in targets)
