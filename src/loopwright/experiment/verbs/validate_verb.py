"""``loopwright validate DIR``: the newest checkpoint of a run, with the configuration that the run recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from loopwright.checkpoint import resolve
from loopwright.device import deterministic_workspace
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.console.tables import show
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import check_jobs
from loopwright.experiment.jobs.job import Job, make_recorded_job
from loopwright.experiment.jobs.objects import build_run_data, build_trainer
from loopwright.experiment.jobs.process import process_settings
from loopwright.experiment.jobs.recorded import apply_overrides, read_recorded


def validate(line: CommandLine, jobs: Sequence[Job], trust: Trust) -> int:
    """Validate a run and print its metrics; nothing is written anywhere.

    Overrides set values that the run recorded; ``ckpt_path`` chooses another of its checkpoints.

    Raises:
        SettingError: if the directory holds no run, or for a setting that cannot be used.
        CheckpointError: if no checkpoint of the run is good.
    """
    assert line.directory is not None
    directory = Path(line.directory)
    config = read_recorded(directory)
    config |= {"ckpt_path": None, "ckpt_paths": None, "init_from": None}
    apply_overrides(config, line.overrides)
    config["loggers"] = None  # nothing is written, so a package that they need may be missing
    chosen, config["ckpt_path"] = config["ckpt_path"], None
    job = make_recorded_job(config, line.overrides, trust)
    with deterministic_workspace(is_needed=job.settings.deterministic):
        check_jobs([job], trust)
        checkpoint = resolve(chosen or directory)
        num_threads = config["device"].get("num_threads") or torch.get_num_threads()
        with process_settings(num_threads, deterministic=job.settings.deterministic):
            trainer = build_trainer(config, job.settings, trust, run_dir=None)
            with trainer:
                metrics = trainer.validate(build_run_data(config, trust, trainer.seed).val, ckpt_path=checkpoint)
    shown = [f"{name} {show(value)}" for name, value in metrics.items()]
    tell("\n".join([f"Validated: {checkpoint}", *shown]))
    return 0
