"""Functions that validate outside a fit, with the weights in memory or with the weights of checkpoints.

A downstream validation is a validation that a callback runs in its hook ``run_validation``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from loopwright.checkpoint import load_weights, plain_names, refuse_lazy, unsaved_buffers
from loopwright.data import as_ordered_source, as_source
from loopwright.engine.downstream import downstream_validations, run_downstream
from loopwright.engine.hook_table import call_hooks
from loopwright.engine.parts import Parts
from loopwright.engine.validate import ValidationSet, means_over_sets, validate
from loopwright.errors import refuse_type
from loopwright.loop import ValidationLoop
from loopwright.plan import eval_steps_note, validation_batches
from loopwright.protocols import Ranks
from loopwright.seeding import derive
from loopwright.trainer.dataloaders import name_dataloaders
from loopwright.trainer.ranked_saving import Saver
from loopwright.trainer.resume import find_run, load_model, read_run

_log = logging.getLogger("loopwright")


class ValidationRow(NamedTuple):
    """The metrics of one checkpoint (None: the weights in memory) on one dataloader.

    A downstream validation that logs metrics also has a row, with its name as ``dataloader``.
    """

    checkpoint: Path | None
    dataloader: str
    metrics: Mapping[str, float]


def open_val_sets(
    val_dataloader: Any, seed: int, root: str = "val", ranks: Ranks | None = None
) -> dict[str, ValidationSet]:
    """Return the validation sets by name. Each read of a set starts at its first batch and has the same order.

    Args:
        val_dataloader: a dataloader, or a list or a mapping of dataloaders.
        seed: seed of the run.
        root: prefix of the names of the sets.
        ranks: processes that read the sets together; None: this process reads all rows.

    Raises:
        SettingTypeError: if a dataloader is an iterator, which can be read only once.
    """
    loaders = name_dataloaders(val_dataloader, root)
    for name, loader in loaders.items():
        if isinstance(loader, Iterator):
            raise refuse_type(name, loader, "a dataloader that can be read again, and not an iterator")
    return {
        name: ValidationSet(
            name=name, dataloader=loader, source=as_source(loader, derive(seed, "validate", name), name, ranks)
        )
        for name, loader in loaders.items()
    }


def open_set_in_order(dataloader: Any, seed: int) -> ValidationSet:
    """Return a `ValidationSet` for predictions, which reads the samples in the order of the data set if possible.

    Raises:
        SettingTypeError: if ``dataloader`` contains several dataloaders, or none.
    """
    loaders = name_dataloaders(dataloader, "predict")
    if list(loaders) != ["predict"]:
        raise refuse_type("dataloader", dataloader, "one dataloader")
    loader = loaders["predict"]
    source = as_ordered_source(loader, derive(seed, "validate", "predict"), "dataloader")
    return ValidationSet(name="predict", dataloader=loader, source=source)


def validate_sets(
    parts: Parts, loop: ValidationLoop, val_sets: Mapping[str, ValidationSet], root: str = "val"
) -> dict[str, dict[str, float]]:
    """Validate each dataloader with the weights in memory. Check all lengths before the first read.

    Return the metrics of each dataloader, by its name. The names of the dataloaders must begin with ``root``.
    """
    lengths = {
        name: validation_batches(data.source.max_batches, loop.eval_steps, name) for name, data in val_sets.items()
    }
    for name, data in val_sets.items():
        note = eval_steps_note(data.source.max_batches, loop.eval_steps, name)
        if note is not None:
            _log.warning("%s.", note)
    results = {name: validate(parts, loop, data, lengths[name]) for name, data in val_sets.items()}
    metrics = {name: value for values in results.values() for name, value in values.items()}
    # No means are logged for a single set. The set may be unknown to the fit, whose means must not be replaced.
    if len(val_sets) > 1 and (means := means_over_sets(metrics, list(val_sets), root)):
        parts.log.log(means, parts.state.global_step)
    return results


def validate_checkpoints(
    parts: Parts, loop: ValidationLoop, val_dataloaders: Any, folders: Sequence[Path | None]
) -> list[ValidationRow]:
    """For each checkpoint, validate each dataloader and run the downstream validations.

    The weights and the step of the run are restored after each checkpoint.

    Args:
        parts: model, device, hooks (with the hooks of ``loop``) and other objects of this run; see `Parts`.
        loop: validation loop.
        val_dataloaders: validation dataloaders that the user gave.
        folders: folders of the checkpoints. An entry of None means the weights in memory.

    Raises:
        SettingTypeError: if there is neither a dataloader nor a downstream validation.
        CheckpointError: if a checkpoint cannot be used.
    """
    val_sets = open_val_sets(val_dataloaders, parts.streams.seed, ranks=parts.strategy.ranks)
    if not val_sets and not parts.hooks["run_validation"]:
        raise refuse_type("val_dataloaders", val_dataloaders, "a dataloader, or a list or mapping of them")
    rows = []
    with ExitStack() as stack:
        enter = parts.hooks["on_enter_validate_all"]
        call_hooks(enter, parts.trainer, stack, val_dataloaders, loop, list(folders))
        for folder in folders:
            with nullcontext() if folder is None else weights_of(parts, folder):
                for name, metrics in validate_sets(parts, loop, val_sets).items():
                    rows.append(ValidationRow(folder, name, metrics))
                for name, _, hook in downstream_validations(parts):
                    with parts.log.collecting() as metrics:
                        run_downstream(parts, name, hook, None, is_last=True)
                    if metrics:
                        rows.append(ValidationRow(folder, name, metrics))
    return rows


@contextmanager
def chosen_weights(
    parts: Parts, saver: Saver | None, run_dir: Path | None, ckpt_path: str | Path | int | None
) -> Iterator[None]:
    """Use the weights of a checkpoint during the context; if ``ckpt_path`` is None, the weights in memory.

    The random streams and torch's settings of this run are also active during the context.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
    """
    with ExitStack() as stack:
        stack.enter_context(parts.streams.active())
        stack.enter_context(parts.strategy.computing())
        if ckpt_path is not None:
            if saver is not None:
                saver.wait_or_warn()
            stack.enter_context(weights_of(parts, find_run(parts, ckpt_path, run_dir)))
        yield


@contextmanager
def weights_of(parts: Parts, folder: Path) -> Iterator[None]:
    """Use the weights and the step of a checkpoint during the context, and then restore the previous weights and step.

    Raises:
        RuntimeError: inside a step, because the backward of the step needs the weights in memory.
        CheckpointError: if the checkpoint cannot be used.
    """
    if parts.state.is_inside_window:
        raise RuntimeError("A checkpoint cannot be loaded inside a step; validate it at the end of the step.")
    refuse_lazy(parts.model)
    kept, kept_buffers = (
        {name: entry.clone() if isinstance(entry, Tensor) else entry for name, entry in entries.items()}
        for entries in (plain_names(parts.model), unsaved_buffers(parts.model))
    )
    state = parts.state
    step, outer = state.global_step, state.validation_checkpoint
    state.validation_checkpoint = folder
    try:
        checkpoint = read_run(parts, folder, weights_only=True)
        load_model(parts, checkpoint)
        state.global_step = checkpoint.step
        call_hooks(parts.hooks["on_load_checkpoint"], parts.trainer, checkpoint.state)
        yield
    finally:
        load_weights(parts.model, kept, kept_buffers)
        state.global_step, state.validation_checkpoint = step, outer
