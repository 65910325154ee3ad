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
from loopwright.experiment.jobs.check import checked_again
from loopwright.experiment.jobs.job import Job, make_recorded_job
from loopwright.experiment.jobs.objects import choose_split, make_trainer
from loopwright.experiment.jobs.recorded import apply_overrides, read_recorded
from loopwright.experiment.jobs.recorded_data import refuse_other_data, to_use_them, types_data
from loopwright.records import read_summary


def validate(line: CommandLine, trust: Trust) -> int:
    """Validate the newest valid checkpoint of a run, and print the metrics. No files are written.

    Overrides change recorded values. The override ``ckpt_path`` chooses another checkpoint: a path, or ``best``.
    The option ``split`` chooses other data than the validation data: ``test``, ``train`` or one set such as ``val/a``.
    Their metrics begin with ``val/`` and the name of the set.

    Raises:
        SettingError: if the directory contains no run, for a wrong setting, and if the data are not the recorded data
            although no override chooses other data.
        CheckpointError: if the run has no valid checkpoint.
    """
    assert line.directory is not None
    directory = Path(line.directory)
    recorded = read_recorded(directory) | {"ckpt_path": None, "ckpt_paths": None, "init_from": None}
    options, overrides = split_options(line.overrides, {"split": "val"})
    changed = copy.deepcopy(recorded)
    apply_overrides(changed, overrides)

    def make_job(config: dict[str, Any]) -> Job:
        apply_overrides(config, overrides)
        # Loggers would write nothing, and the packages that they need may be missing.
        return make_recorded_job(config | {"loggers": None, "ckpt_path": None}, overrides, trust)

    summary = read_summary(directory)
    with checked_again(make_job, recorded, summary, trust) as ready:
        if not types_data(overrides):
            refuse_other_data(summary, ready.objects.data, to_use_them(recorded["data"]))
        checkpoint, why = choose(within(directory, changed["ckpt_path"]))
        with make_trainer(ready.job, ready.objects, trust, run_dir=None) as trainer:
            metrics = trainer.validate(_chosen(ready.objects.data, options["split"]), ckpt_path=checkpoint)
    shown = [f"{name} {show(value)}" for name, value in metrics.items()]
    tell("\n".join([f"Validated: {checkpoint} ({why})", *shown]))
    return 0


def _chosen(data: Splits, split: str | None) -> Any:
    """Return the validation dataloaders, or a mapping with the dataloaders that ``split`` names."""
    if split in (None, "val"):
        return data.val
    whole = data.test if split == "test" and isinstance(data.test, Mapping) else None
    if whole is not None:
        return {f"test/{name}": loader for name, loader in whole.items()}
    return {str(split).removeprefix("val/"): choose_split(data, str(split))}
