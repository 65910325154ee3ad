"""Validation outside a fit: dataloaders on the weights in memory, or on those of checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from loopwright.checkpoint import load_weights, plain_names, refuse_lazy, unsaved_buffers
from loopwright.data import as_source
from loopwright.engine.downstream import downstream_validations, run_downstream
from loopwright.engine.hook_table import call_hooks
from loopwright.engine.parts import Parts
from loopwright.engine.validate import ValidationSet, validate
from loopwright.errors import refuse_type
from loopwright.loop import ValidationLoop
from loopwright.plan import eval_steps_note, validation_batches
from loopwright.seeding import derive
from loopwright.trainer.dataloaders import name_dataloaders
from loopwright.trainer.resume import load_model, read_run

_log = logging.getLogger("loopwright")


class ValidationRow(NamedTuple):
    """One line of `Trainer.validate_all`: a checkpoint (None: the weights in memory) on one dataloader.

    What a downstream validation logged is a line too, with its name as ``dataloader``.
    """

    checkpoint: Path | None
    dataloader: str
    metrics: Mapping[str, float]


def open_val_sets(val_dataloader: Any, seed: int, root: str = "val") -> dict[str, ValidationSet]:
    """Validation dataloaders by their names, each readable from its beginning, always in the same order.

    Args:
        val_dataloader: one, a list, or a mapping from names.
        seed: of the run.
        root: prefix of their names.

    Raises:
        SettingTypeError: for an iterator, which has a beginning only once.
    """
    loaders = name_dataloaders(val_dataloader, root)
    for name, loader in loaders.items():
        if isinstance(loader, Iterator):
            raise refuse_type(name, loader, "a dataloader that can be read again, and not an iterator")
    return {
        name: ValidationSet(
            name=name, dataloader=loader, source=as_source(loader, derive(seed, "validate", name), name)
        )
        for name, loader in loaders.items()
    }


def validate_sets(
    parts: Parts, loop: ValidationLoop, val_sets: Mapping[str, ValidationSet]
) -> dict[str, dict[str, float]]:
    """Validate each dataloader on the weights in memory; the lengths of all are checked before the first is read."""
    lengths = {
        name: validation_batches(data.source.num_batches, loop.eval_steps, name) for name, data in val_sets.items()
    }
    for name, data in val_sets.items():
        note = eval_steps_note(data.source.num_batches, loop.eval_steps, name)
        if note is not None:
            _log.warning("%s.", note)
    return {name: validate(parts, loop, data, lengths[name]) for name, data in val_sets.items()}


def validate_checkpoints(
    parts: Parts, loop: ValidationLoop, val_dataloaders: Any, folders: Sequence[Path | None]
) -> list[ValidationRow]:
    """Validate each dataloader on each checkpoint, then run the downstream validations on it.

    Args:
        parts: of this run, with the loop's hooks bound; its weights and step are given back.
        loop: the validation loop.
        val_dataloaders: as the user gave them.
        folders: checkpoints; None: the weights in memory.
    """
    val_sets = open_val_sets(val_dataloaders, parts.streams.seed)
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
def weights_of(parts: Parts, folder: Path) -> Iterator[None]:
    """Run the body on the weights and at the step of a checkpoint; give those in memory back.

    Raises:
        RuntimeError: inside a step, whose backward needs the weights in memory.
        CheckpointError: if the checkpoint cannot be used.
    """
    if parts.state.is_inside_window:
        raise RuntimeError("A checkpoint is not loaded inside a step; validate it at a step's end.")
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
