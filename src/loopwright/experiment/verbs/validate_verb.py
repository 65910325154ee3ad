"""The command ``loopwright validate DIR``, which validates a checkpoint with the recorded configuration."""

from __future__ import annotations

from pathlib import Path

from loopwright.checkpoint import resolve
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.tables import show
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import checked
from loopwright.experiment.jobs.job import make_recorded_job
from loopwright.experiment.jobs.objects import make_trainer
from loopwright.experiment.jobs.recorded import apply_overrides, read_recorded


def validate(line: CommandLine, trust: Trust) -> int:
    """Validate the newest valid checkpoint of a run, and print the metrics. No files are written.

    Overrides change recorded values. The override ``ckpt_path`` chooses another checkpoint.

    Raises:
        SettingError: if the directory contains no run, and for a wrong setting.
        CheckpointError: if the run has no valid checkpoint.
    """
    assert line.directory is not None
    directory = Path(line.directory)
    config = read_recorded(directory)
    config |= {"ckpt_path": None, "ckpt_paths": None, "init_from": None}
    apply_overrides(config, line.overrides)
    config["loggers"] = None  # loggers would write nothing, and the packages that they need may be missing
    chosen, config["ckpt_path"] = config["ckpt_path"], None
    job = make_recorded_job(config, line.overrides, trust)
    with checked(job, trust) as ready:
        checkpoint = resolve(chosen or directory)
        with make_trainer(ready.job, ready.objects, trust, run_dir=None) as trainer:
            metrics = trainer.validate(ready.objects.data.val, ckpt_path=checkpoint)
    shown = [f"{name} {show(value)}" for name, value in metrics.items()]
    tell("\n".join([f"Validated: {checkpoint}", *shown]))
    return 0
