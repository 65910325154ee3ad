"""The command ``loopwright resume DIR``, which continues a run with its recorded configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopwright.checkpoint import resolve
from loopwright.errors import SettingError, on_one_line
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import checked
from loopwright.experiment.jobs.job import Job, make_recorded_job
from loopwright.experiment.jobs.recorded import apply_overrides, check_files, differences, read_recorded
from loopwright.experiment.rundir.environment import recorded_threads
from loopwright.experiment.runs.ending import RunRequest
from loopwright.experiment.runs.run import carry_out, opened
from loopwright.records import read_summary

# A resumed run may change only the settings in `_MAY_CHANGE`. The settings in `_LENGTHS` set the length of the run. The
# other settings do not change its results.
_LENGTHS = ("loop.max_steps", "loop.num_steps", "loop.num_epochs", "callbacks.early_stopping.patience")
_KEPT = ("checkpoint.keep_last", "checkpoint.keep_every", "checkpoint.on_save_error", "checkpoint.background")
_STARTS = ("ckpt_path", "ckpt_paths", "init_from")
_MAY_CHANGE = (*_LENGTHS, *_KEPT, "data.num_workers", "callbacks.time_limit.minutes", "max_restarts")


def resume(line: CommandLine, trust: Trust) -> int:
    """Resume a run from its newest valid checkpoint, and return the exit code.

    Raises:
        SettingError: if the directory contains no training run, or if an override changes a setting that must not
            change in a resumed run.
        CheckpointError: if the run has no valid checkpoint, or if another process uses the directory.
    """
    assert line.directory is not None
    directory = Path(line.directory)
    recorded = read_recorded(directory)
    config = copy.deepcopy(recorded)
    apply_overrides(config, line.overrides)
    changes = _check_changes(recorded, config)
    check_files(directory)
    summary = read_summary(directory)
    if summary.get("state") == "completed" and not any(name in _LENGTHS for name in changes):
        with checked(_job_from(config, None, line, trust), trust):
            pass  # only the checks are needed: they refuse a wrong value
        step = on_one_line(str(summary.get("global_step")), 80)
        tell(
            f"{directory}: completed at global_step {step}; nothing is left to do. "
            f"To train it for longer: loopwright resume {directory} loop.max_steps=N"
        )
        return 0
    with opened(directory):
        checkpoint = resolve(directory)
        job = _job_from(config, str(checkpoint), line, trust)
        with checked(job, trust, recorded_threads(directory)) as ready:
            starts = {name: config[name] for name in _STARTS}
            request = RunRequest(
                job=replace(
                    ready.job,
                    config={**ready.job.config, **starts},
                    settings=replace(ready.job.settings, **starts),
                ),
                directory=directory,
                words=["loopwright", *line.words],
                trust=trust,
                objects=ready.objects,
                resume_from=checkpoint,
            )
            del ready  # only the request refers to the objects now
            return carry_out(request).exit_code


def _job_from(config: Mapping[str, Any], checkpoint: str | None, line: CommandLine, trust: Trust) -> Job:
    """Return a job that starts from ``checkpoint`` instead of the checkpoint from which the original run started."""
    return make_recorded_job({**config, **dict.fromkeys(_STARTS), "ckpt_path": checkpoint}, line.overrides, trust)


def _check_changes(recorded: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return the names of the changed settings. Refuse changes that are not allowed in a resumed run."""
    changes = {line.partition(":")[0]: line for line in differences(recorded, config)}
    refused = [line for name, line in changes.items() if name not in _MAY_CHANGE]
    if refused:
        raise SettingError(
            "resume",
            f": a resumed run keeps its settings ({'; '.join(refused)}); to train for longer, use loop.max_steps=N.",
        )
    return list(changes)
