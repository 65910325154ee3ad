"""The command ``loopwright validate DIR``, which validates a checkpoint with the recorded configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopwright.checkpoint import choose, within
from loopwright.data import Splits
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.options import split_options
from loopwright.experiment.console.tables import show
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.new_data import built_data, chooses_new_data, new_data, refuse_unread_path
from loopwright.experiment.jobs.objects import choose_split
from loopwright.experiment.jobs.recorded import apply_overrides, read_recorded, run_of
from loopwright.experiment.jobs.start import NO_START
from loopwright.records import read_encoding


def validate(line: CommandLine, trust: Trust) -> int:
    """Validate the newest valid checkpoint of a run, and print the metrics. No files are written.

    Overrides change recorded values. The override ``ckpt_path`` selects another checkpoint by a path or ``best``. If
    the run was trained on a table or on images, ``data.path=FILE`` selects all samples of a new table or of a new
    folder of images. New samples are encoded with the recorded encoding in ``data.json``.

    The option ``split`` selects ``test``, ``train`` or one validation set such as ``val/a`` instead of all validation
    data. The names of the metrics then begin with ``val/`` and the name of the selected set.

    Raises:
        SettingError: if the directory contains no run, or if a setting is wrong. The error is also raised if the
            recorded data have changed, and if the encoding of the data differs from the recorded encoding.
        CheckpointError: if the run has no valid checkpoint.
    """
    assert line.directory is not None
    directory = Path(line.directory)
    recorded = read_recorded(directory) | dict(NO_START)
    options, overrides = split_options(line.overrides, {"split": "val"})
    refuse_unread_path(directory, recorded, overrides)
    changed = copy.deepcopy(recorded)
    apply_overrides(changed, overrides)
    chosen, split = choose(within(directory, changed["ckpt_path"])), str(options["split"])
    encoding = read_encoding(run_of(chosen.folder) or directory) or {}
    if chooses_new_data(overrides, encoding, split):
        with new_data(recorded, overrides, encoding, trust, has_targets=True) as (trainer, samples):
            metrics = trainer.validate(samples.loader, ckpt_path=chosen.folder)
    else:
        with built_data(directory, recorded, overrides, chosen.folder, trust) as (trainer, data):
            metrics = trainer.validate(_chosen(data, split), ckpt_path=chosen.folder)
    shown = [f"{name} {show(value)}" for name, value in metrics.items()]
    tell("\n".join([f"Validated: {chosen.folder} ({chosen.reason})", *shown]))
    return 0


def _chosen(data: Splits, split: str) -> Any:
    """Return the dataloaders that ``split`` selects. For all splits except ``val``, return a mapping by name."""
    if split == "val":
        return data.val
    whole = data.test if split == "test" and isinstance(data.test, Mapping) else None
    if whole is not None:
        return {f"test/{name}": loader for name, loader in whole.items()}
    return {split.removeprefix("val/"): choose_split(data, split)}
