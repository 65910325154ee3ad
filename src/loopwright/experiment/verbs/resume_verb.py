"""``loopwright resume DIR``: a run goes on in its directory, with the configuration that it recorded."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopwright.checkpoint import resolve
from loopwright.errors import SettingError
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

# What may be set anew: a later end, and what changes nothing in the run.
_LENGTHS = ("loop.max_steps", "loop.num_steps", "loop.num_epochs", "callbacks.early_stopping.patience")
_KEPT = ("checkpoint.keep_last", "checkpoint.keep_every", "checkpoint.on_save_error", "checkpoint.background")
_STARTS = ("ckpt_path", "ckpt_paths", "init_from")
_MAY_CHANGE = (*_LENGTHS, *_KEPT, "data.num_workers", "callbacks.time_limit.minutes", "max_restarts")


def resume(line: CommandLine, trust: Trust) -> int:
    """Go on with a run from its newest good checkpoint to the end of its plan, and return the exit code.

    Raises:
        SettingError: if the directory holds no training run, or for a setting other than a later end.
        CheckpointError: if no checkpoint of the run is good, or another process is running it.
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
            pass  # a wrong value is refused here, too
        tell(
            f"{directory}: completed at global_step {summary.get('global_step')}; nothing is left to do. "
            f"To a later end: loopwright resume {directory} loop.max_steps=N"
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
            del ready  # the objects belong to the run now
            return carry_out(request).exit_code


def _job_from(config: Mapping[str, Any], checkpoint: str | None, line: CommandLine, trust: Trust) -> Job:
    """Make the job that starts from ``checkpoint`` in place of the checkpoint that the run itself began with."""
    return make_recorded_job({**config, **dict.fromkeys(_STARTS), "ckpt_path": checkpoint}, line.overrides, trust)


def _check_changes(recorded: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The settings that were changed, all of which may be."""
    changes = {line.partition(":")[0]: line for line in differences(recorded, config)}
    refused = [line for name, line in changes.items() if name not in _MAY_CHANGE]
    if refused:
        raise SettingError(
            "resume",
            f": a run goes on as it was begun ({'; '.join(refused)}); only a later end can be given, such as "
            "loop.max_steps=N.",
        )
    return list(changes)
