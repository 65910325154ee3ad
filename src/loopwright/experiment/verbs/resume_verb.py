"""``loopwright resume DIR``: a run goes on in its directory, with the configuration that it recorded."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopwright.checkpoint import resolve
from loopwright.device import deterministic_workspace
from loopwright.errors import SettingError
from loopwright.experiment.console.command_line import CommandLine
from loopwright.experiment.console.messages import tell
from loopwright.experiment.gate.trust import Trust
from loopwright.experiment.jobs.check import check_jobs
from loopwright.experiment.jobs.job import Job, make_recorded_job
from loopwright.experiment.jobs.recorded import apply_overrides, check_files, differences, read_recorded
from loopwright.experiment.rundir.environment import recorded_threads
from loopwright.experiment.runs.ending import RunRequest
from loopwright.experiment.runs.run import carry_out, opened
from loopwright.records import read_summary

# What may be set anew: a later end, and what changes nothing in the run.
_LENGTHS = ("loop.max_steps", "loop.num_steps", "loop.num_epochs", "callbacks.early_stopping.patience")
_KEPT = ("checkpoint.keep_last", "checkpoint.keep_every", "checkpoint.on_save_error", "checkpoint.background")
_MAY_CHANGE = (*_LENGTHS, *_KEPT, "data.num_workers", "callbacks.time_limit.minutes", "max_restarts")


def resume(line: CommandLine, jobs: Sequence[Job], trust: Trust) -> int:
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
        _check_settings(config, None, line, trust)
        tell(
            f"{directory}: completed at global_step {summary.get('global_step')}; nothing is left to do. "
            f"To a later end: loopwright resume {directory} loop.max_steps=N"
        )
        return 0
    is_deterministic = config.get("deterministic") is True
    with deterministic_workspace(is_needed=is_deterministic), opened(directory):
        checkpoint = resolve(directory)
        _check_settings(config, str(checkpoint), line, trust)
        ended = carry_out(
            RunRequest(
                config=config,
                directory=directory,
                words=["loopwright", *line.words],
                trust=trust,
                default_num_threads=recorded_threads(directory),
                is_quiet=False,
                resume_from=checkpoint,
            )
        )
        return ended.exit_code


def _check_settings(config: Mapping[str, Any], ckpt_path: str | None, line: CommandLine, trust: Trust) -> None:
    here = {"ckpt_path": ckpt_path, "ckpt_paths": None, "init_from": None}
    check_jobs([make_recorded_job({**config, **here}, line.overrides, trust)], trust)


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
