"""`check_start`, which refuses checkpoints whose weights a job cannot use, before a run directory is created."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from loopwright.checkpoint import check_weights, expand, read_checkpoint, resolve
from loopwright.errors import CheckpointError
from loopwright.experiment.jobs.job import Job
from loopwright.trainer.arguments import build_optimizer
from loopwright.trainer.start import check_initial

# Settings that choose and load a checkpoint, each with its value in a job that loads no checkpoint.
NO_START: Mapping[str, Any] = MappingProxyType(
    {"ckpt_path": None, "ckpt_paths": None, "init_from": None, "init_strict": True, "init_optimizer": False}
)


def check_start(job: Job, model: nn.Module | None, optimizer: Any) -> None:
    """Refuse a checkpoint whose weights or optimizer state cannot be read or are incompatible with the job.

    This function does not check ``ckpt_path`` of a training run, because `plan_job` checks it.

    Args:
        job: job that starts from ``init_from``, or validates ``ckpt_path`` or ``ckpt_paths``.
        model: model without its weights; None: the saved weights are read but not compared.
        optimizer: callable that builds the optimizer.

    Raises:
        CheckpointError: if a checkpoint is missing, cannot be read or is incompatible with the job.
        SettingError: if the optimizer cannot be built for the parameters of the model.
    """
    settings = job.settings
    path = settings.init_from or settings.ckpt_path
    if path is None:
        if settings.ckpt_paths is not None:
            expand(settings.ckpt_paths)
        return
    folder = resolve(path, is_quiet=True)
    saved = read_checkpoint(folder, weights_only=not settings.init_optimizer).state
    try:
        if settings.init_from is None:
            if model is not None:
                check_weights(model, saved["model"])
            return
        built = None
        if settings.init_optimizer and model is not None:
            built = build_optimizer(optimizer, model, is_given_model=False)
        strict, init_optimizer = settings.init_strict, settings.init_optimizer
        check_initial(model, built, saved, strict=strict, init_optimizer=init_optimizer)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
