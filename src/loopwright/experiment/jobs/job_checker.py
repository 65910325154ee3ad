"""`JobChecker`, which builds the objects of jobs and refuses settings, paths and models that a run cannot use."""

from __future__ import annotations

import glob
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from loopwright.checkpoint import folder_problem
from loopwright.device import Device, check_compiler, find_blocks, open_device
from loopwright.errors import CheckpointError, SettingError
from loopwright.experiment.console.command_line import command_on
from loopwright.experiment.gate.allow import NEEDS
from loopwright.experiment.gate.call_arguments import check_arguments
from loopwright.experiment.gate.instantiate import instantiate
from loopwright.experiment.gate.tree import TARGET, walk
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs import objects as build
from loopwright.experiment.jobs.job import Job
from loopwright.experiment.jobs.job_plan import JobPlan, plan_job
from loopwright.experiment.jobs.model_check import check_takes, fill_model
from loopwright.experiment.jobs.model_demands import is_shipped, note_more_classes
from loopwright.experiment.jobs.objects import JobObjects
from loopwright.experiment.jobs.process_checks import check_devices, check_processes
from loopwright.experiment.jobs.rate_curve import sketch_optimizer
from loopwright.experiment.jobs.recorded import RESUMED_SECTIONS, run_differences, run_of
from loopwright.experiment.jobs.recorded_data import refuse_other_data, types_data
from loopwright.experiment.jobs.recorded_encoding import refuse_other_encoding, to_validate_new
from loopwright.experiment.jobs.section_cache import SectionCache
from loopwright.experiment.jobs.start import NO_START, check_start
from loopwright.loop import TrainingLoop
from loopwright.optim import NAME_ARGUMENTS
from loopwright.records import read_summary
from loopwright.trainer.arguments import make_optimizer
from loopwright.trainer.scheduler_epochs import uses_epochs

_CHECKPOINTS = ("ckpt_path", "ckpt_paths")
_COLLECTED = ("callbacks", "loggers")  # sections that are mappings of names to objects

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedJob:
    """A checked job, with its plan and its objects.

    Attributes:
        job: checked job with a seed and a number of threads.
        objects: objects that were built for the check. The run uses these objects and does not build them again.
        plan: plan of the job.
    """

    job: Job
    objects: JobObjects
    plan: JobPlan


class JobChecker:
    """Checks jobs one after another. Objects of the previous job are used again if their sections have not changed.

    Args:
        trust: packages that the user trusts.
        builds_trusted: whether to build sections that name classes of trusted packages.
        compares_data: whether to refuse data that differ from the recorded data of the run whose checkpoint is loaded.
    """

    def __init__(self, trust: Trust, *, builds_trusted: bool, compares_data: bool = True) -> None:
        self.trust = trust
        self._compares_data = compares_data
        self._builds_trusted = builds_trusted
        self._cache = SectionCache()

    def check_arguments(self, job: Job) -> None:
        """Refuse arguments that a class or function named by a ``_target_`` does not accept.

        Raises:
            SettingError: the message names all such arguments.
        """
        with self._cache.changed("arguments", job.config) as sections:
            check_arguments(sections, self.trust)

    def device(self, job: Job) -> Device:
        """Return the device settings of a job, as its configuration gives them."""
        return self._once(job, ["device"], lambda: build.build_device(job, self.trust), "device settings")

    def num_parameters(self, job: Job) -> int | None:
        """Return the number of parameters of the model, or None if the number is unknown.

        The number is unknown in three cases: the section ``model`` names a class of a trusted package, the model has
        lazy parameters, or the model cannot be built. `check` raises the error of a model that cannot be built, because
        `fill` may correct the settings first.

        Raises:
            SettingError: if a section needs a package that is not installed.
        """
        self._check_installed(job)
        try:
            model = self._model(job)
        except SettingError:
            return None
        parameters = [] if model is None else list(model.parameters())
        if model is None or any(is_lazy(parameter) for parameter in parameters):
            return None
        return sum(parameter.numel() for parameter in parameters)

    def fill(self, job: Job) -> Job:
        """Return a copy of the job in which shipped data determine settings of a shipped model, such as its input size.

        Raises:
            SettingError: if the data cannot be built.
        """
        config = job.built_from
        if job.make_source is None or not is_shipped(config["model"]) or not _is_ours(config["data"]):
            return job
        self._check_installed(job)
        return fill_model(self._once(job, ["data"], lambda: build.build_data(job, self.trust)), job)

    def check(self, job: Job) -> CheckedJob | None:
        """Refuse wrong values, missing packages, missing checkpoints, and a model or plan that does not fit the data.

        The model is built without allocating its weights.

        Args:
            job: job returned by `settle` and `fill`.

        Returns:
            The checked job. None if a section was not built because it names a class of a trusted package.

        Raises:
            SettingError: for a wrong setting.
            CheckpointError: for a checkpoint that does not exist.
        """
        config, trust = job.built_from, self.trust
        self._check_installed(job)
        loop = build.build_loop(job, trust)
        _check_paths(job, is_training=isinstance(loop, TrainingLoop), permissions=trust.flags)
        device = self._once(job, ["device"], partial(_usable_device, job, trust))
        precision = self._once(job, ["precision"], lambda: build.build_precision(config.get("precision"), trust))
        checkpointing = self._once(
            job, ["checkpoint"], lambda: build.build_checkpointing(config.get("checkpoint"), trust)
        )
        collected = {
            section: self._once(job, [section], partial(build.build_callbacks, config, section, trust))
            for section in _COLLECTED
            if self._builds(config.get(section))
        }
        optimizer = self._once(
            job, ["optimizer", "model"], lambda: _usable_optimizer(config, trust, partial(self._model, job))
        )
        schedulers = self._once(job, ["scheduler", "optimizer"], lambda: _usable_schedulers(config, trust, optimizer))
        model = self._model(job)
        if model is not None and device.compiling is not None and device.compiling.target == "blocks":
            find_blocks(model, device.blocks)
        if job.settings.init_from is not None or not isinstance(loop, TrainingLoop):
            # A callback of a trusted package may change the names of the model's weights before a run loads them.
            comparable = model if _is_ours(config.get("callbacks")) else None
            self._once(job, [*NO_START, "model", "optimizer"], lambda: check_start(job, comparable, optimizer))
        if not self._builds(config["data"]) or len(collected) < len(_COLLECTED):
            return None
        objects = JobObjects(
            loop=loop,
            device=device,
            precision=precision,
            checkpointing=checkpointing,
            optimizer=optimizer,
            schedulers=schedulers,
            callbacks=collected["callbacks"],
            loggers=collected["loggers"],
            data=self._once(job, ["data"], lambda: build.build_data(job, trust)),
        )
        if self._compares_data:
            self._once(job, ["data", *_CHECKPOINTS], lambda: _check_same_data(job, objects, trust.flags))
        notes = (*note_more_classes(model, objects.data, job), *check_processes(objects, model))
        job = replace(job, notes=(*job.notes, *notes))
        plan = plan_job(job.settings, objects, job.notes, has_own_outputs=not _is_ours(config["model"]))
        # A callback of a trusted package may change batches before the model receives them.
        if model is not None and _is_ours(config["data"]) and _is_ours(config.get("callbacks")):
            self._once(job, ["data", "model"], lambda: check_takes(model, objects.data, job))
        return CheckedJob(job=job, objects=objects, plan=plan)

    def _builds(self, node: Any) -> bool:
        return self._builds_trusted or _is_ours(node)

    def _model(self, job: Job) -> nn.Module | None:
        """Return the model without its weights, or None if the section ``model`` names a class of a trusted package."""
        node = job.built_from["model"]
        return self._once(job, ["model"], lambda: _weightless(node, self.trust)) if _is_ours(node) else None

    def _check_installed(self, job: Job) -> None:
        with self._cache.changed("packages", job.built_from) as sections:
            _check_installed(sections)

    def _once(self, job: Job, sections: Sequence[str], make: Callable[[], T], name: str | None = None) -> T:
        return self._cache.once(job.built_from, sections, make, name)


def _check_installed(config: Mapping[str, Any]) -> None:
    for path, node in walk(dict(config)):
        target = node.get(TARGET) if isinstance(node, dict) else None
        package, extra = NEEDS.get(str(target), (None, None))
        if package is not None and find_spec(package) is None:
            problem = f"={target!r}: needs {package}, which is not installed; pip install 'loopwright[{extra}]'."
            raise SettingError(f"{path}.{TARGET}", problem)


def _usable_device(job: Job, trust: Trust) -> Device:
    device = build.build_device(job, trust)
    try:
        opened = open_device(device)
    except SettingError as error:
        raise SettingError("device.kind", error.problem) from None
    check_devices(device)
    if device.compiling is not None:
        check_compiler(device.compiling, opened.torch_device.type)
    return device


def _usable_optimizer(config: Mapping[str, Any], trust: Trust, get_model: Callable[[], nn.Module | None]) -> Any:
    """Return a callable that builds the optimizer. Refuse wrong arguments and wrong patterns of parameter names."""
    factory = build.build_optimizer(config["optimizer"], trust)
    sketch_optimizer(factory)
    has_patterns = any(config["optimizer"].get(name) for name in NAME_ARGUMENTS)
    if has_patterns and (model := get_model()) is not None:
        try:
            make_optimizer(factory, model)
        except SettingError as error:
            raise error.under("optimizer") from None
    return factory


def _usable_schedulers(config: Mapping[str, Any], trust: Trust, optimizer: Any) -> list[Any]:
    schedulers = build.build_schedulers(config.get("scheduler"), trust)
    for make in schedulers:
        factory = make["scheduler"] if isinstance(make, dict) else make
        if uses_epochs(factory):
            continue  # the length of an epoch is not known here; `plan_job` builds this scheduler
        arguments: dict[str, Any] = {}
        if "total_steps" in inspect.signature(factory).parameters and "total_steps" not in factory.keywords:
            # The number of steps is not known here. With this large number, a scheduler refuses only arguments that are
            # wrong for any number of steps.
            arguments["total_steps"] = 10**9
        try:
            factory(sketch_optimizer(optimizer), **arguments)
        except SettingError as error:
            raise error.under("scheduler") from None
        except (ValueError, TypeError) as error:
            raise SettingError("scheduler", f": {error}") from None
    return schedulers


def _weightless(node: Any, trust: Trust) -> nn.Module:
    """Build the model on the meta device, which allocates no weights."""
    with torch.device("meta"):
        model = instantiate(node, trust, "model")
    if not isinstance(model, nn.Module):
        raise SettingError("model", f": expected a torch.nn.Module; its _target_ returned {type(model).__name__}.")
    return model


def _check_paths(job: Job, *, is_training: bool, permissions: Sequence[str]) -> None:
    settings = job.settings
    if is_training and settings.ckpt_paths is not None:
        raise SettingError("ckpt_paths", ": only a validation accepts several checkpoints; add loop=validation.")
    if not is_training and settings.init_from is not None:
        raise SettingError("init_from", ": a validation loads its weights from ckpt_path; use ckpt_path=… instead.")
    given = settings.ckpt_paths or settings.ckpt_path or settings.init_from or []
    for path in [given] if isinstance(given, str) else given:
        setting = "init_from" if settings.init_from else "ckpt_paths" if settings.ckpt_paths else "ckpt_path"
        is_pattern = settings.ckpt_paths is not None and not os.path.lexists(path) and glob.has_magic(path)
        if is_pattern and not glob.glob(path, recursive=True):
            raise CheckpointError(f"{setting}={path!r}: no such checkpoint or run directory.")
        problem = None if is_pattern else folder_problem(Path(path))
        if problem is not None:
            raise CheckpointError(f"{setting}={path!r}: {problem}")
        if settings.init_from is None and os.path.isdir(path):
            _check_same_run(job, path, is_training=is_training, permissions=permissions)


def _check_same_run(job: Job, path: str, *, is_training: bool, permissions: Sequence[str]) -> None:
    found = run_differences(Path(path), job.recorded, RESUMED_SECTIONS if is_training else ("model",))
    if found is None:
        return
    run_dir, differences = found
    # target_deviation changes only the unit of a metric, and older runs lack this setting.
    differences = [line for line in differences if not line.startswith("model.target_deviation:")]
    if not differences:
        return
    validate = command_on("validate", run_dir, permissions)
    what, remedy = "another model", f"to validate the checkpoint with the recorded model: {validate}"
    if is_training:
        what = "other settings"
        remedy = f"a resumed run keeps its settings. To begin a new run with these weights, use init_from; {remedy}"
    raise SettingError("ckpt_path", f"={path!r}: its run had {what} ({'; '.join(differences)}); {remedy}.")


def _check_same_data(job: Job, objects: JobObjects, permissions: Sequence[str]) -> None:
    """Refuse data that do not fit the runs whose checkpoints are loaded.

    A resumed run must read its recorded data. A validation may read other data if an override chooses these data, but
    the encoding of these data must be equal to the recorded encoding.
    """
    is_training = isinstance(objects.loop, TrainingLoop)
    keeps_data = is_training or not types_data(job.overrides)
    for run_dir in sorted({found for path in _checkpoints(job) if (found := run_of(path)) is not None}):
        remedy = "a resumed run keeps its data; to begin a new run with its weights, use init_from"
        if not is_training:
            remedy = to_validate_new(run_dir, job.recorded["data"], permissions)
        if keeps_data and run_differences(run_dir, job.recorded, ["data"]) is None:
            refuse_other_data(read_summary(run_dir), objects.data, remedy)
        if not is_training:
            refuse_other_encoding(run_dir, objects.data, remedy)


def _checkpoints(job: Job) -> list[Path]:
    given = job.settings.ckpt_paths or job.settings.ckpt_path or []
    paths = [given] if isinstance(given, str) else given
    found = [[path] if os.path.lexists(path) else glob.glob(path, recursive=True) for path in paths]
    return [Path(path) for each in found for path in each]


def _is_ours(node: Any) -> bool:
    """Return whether each ``_target_`` in a section names a class or function of Loopwright or torch."""
    targets = [entry[TARGET] for _, entry in walk(node) if isinstance(entry, dict) and TARGET in entry]
    return all(isinstance(name, str) and name.startswith(("loopwright.", "torch.")) for name in targets)
